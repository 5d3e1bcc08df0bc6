"""The `archiver` command: its options, its subcommands, and how everything that goes wrong reaches the user.

Exit codes: 0 done and complete; 1 fatal; 2 usage or configuration; 3 finished, but something is incomplete; 129, 130 and 143 on
signals. No traceback reaches a user; at log level debug it is in the log, redacted.
"""

from __future__ import annotations

import copy
import errno
import gc
import importlib
import io
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from archiver import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "demo": "Archive 300 simulated sessions into a folder, and prove them.",
    "init": "Write a configuration file to start from, and a key.",
    "config": "Check the configuration, or show what is in force: `config check`.",
    "doctor": "Check everything that the first night depends on.",
    "migrate": "Create or update the database's tables.",
    "roles": "Print the SQL that makes roles with the least rights.",
    "discover": "Learn from the platform which calls took place, and add them to the queue.",
    "nightly": "Discover, archive and account for all calls since the last complete night.",
    "backfill": "Discover and archive calls of a time long past, after everything else.",
    "reconcile": "State for every call that the platform lists what became of it.",
    "nights": "Show the accounts that were made, and which days are complete.",
    "enqueue": "Add sessions to the queue: arguments, a file, or standard input.",
    "worker": "Archive what is in the queue.",
    "status": "Count sessions by state; show rates, holds and workers.",
    "workers": "Show who is at work, since when, and on what.",
    "list": "List sessions by state, bot, reason and date of the call.",
    "find": "Find calls by caller, callee, agent or user.",
    "show": "Show one session: its state, its recordings, its whole history.",
    "get": "Bring a session's recordings out of the store, each checked against its SHA-256.",
    "proof": "Write the proof that a session is in the sealed ledger.",
    "export": "Hand out sessions with their proofs, as a BagIt bag.",
    "sums": "Print SHA256SUMS of what is recorded, as sha256sum checks it.",
    "verify": "Read every stored file again and hold it against its recorded SHA-256.",
    "repair": "Mend what verify found: from the platform, or from quarantine.",
    "seal": "Seal what has happened since the last time, for `audit` to hold the archive against.",
    "audit": "Hold the store and the database against the sealed ledger.",
    "rebuild": "Fill an empty database from the store and its ledger.",
    "checkpoint": "Print the ledger's newest checkpoint, to be kept elsewhere.",
    "key": "Change the key that seals: `key rotate`.",
    "store": "Say whose store it is: `store adopt`.",
    "retry": "Bring failed or cancelled sessions back; look for new files of archived ones.",
    "accept": "Answer for what failed or was found wrong: it stays as it is.",
    "cancel": "Take sessions out of the queue.",
    "pause": "Claim nothing more of a bot, or of all.",
    "resume": "Go on with paused or held bots.",
    "recount": "Count every session again, and mend the counts that differ.",
    "healthcheck": "Tell a working worker of this host from a hung one.",
    "simulate": "Run a stand-in for the Kore platform on loopback.",
}
"""Every command and its short help, so that `--help` imports none of them; a test holds both together."""


MAX_FILES = 65_536
"""Far more than the most sessions at once need."""


class Incomplete(click.exceptions.Exit):
    """Finished, but something is incomplete."""

    def __init__(self) -> None:
        super().__init__(3)


LEVELS = ("debug", "info", "warning", "error")


def _with_common_options(command: click.Command) -> click.Command:
    """The command, and each below it, with the options that all have in common: people write them behind it as well as before.
    Given twice, the later one counts.
    """

    def keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value is not None and ctx.obj is None:  # a shell asks what may follow: nothing is run
            ctx.find_root().params[str(param.name)] = value
        elif value is not None:
            ctx.obj[param.name] = value

    common = [
        click.Option(["--config"], type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Configuration file.",
                     expose_value=False, callback=keep),
        click.Option(["--log-level"], type=click.Choice(LEVELS), metavar="LEVEL", help="Instead of log.level.",
                     expose_value=False, callback=keep),
    ]  # fmt: skip
    made = copy.copy(command)
    made.params = [*map(_completed, command.params), *common]
    if isinstance(made, click.Group):
        made.commands = {name: _with_common_options(below) for name, below in made.commands.items()}
    return made


def _completed(param: click.Parameter) -> click.Parameter:
    """The parameter; --bot offers the names of the bots to a shell."""
    if "--bot" not in param.opts:
        return param
    made = copy.copy(param)

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from archiver.cli.completing import bot_names

        return bot_names(ctx, param, incomplete)

    made._custom_shell_complete = offer
    return made


class _Commands(click.Group):
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What may follow, without importing every command for its help."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        gc.disable()  # modules make no garbage: looking for it is a twentieth of the time that they take
        try:
            return _with_common_options(importlib.import_module(f"archiver.cli.{cmd_name}").command)
        finally:
            gc.enable()

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS:
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f'no such command "{name}"' + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", "config", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Configuration file. Else $ARCHIVER_CONFIG, ./archiver.toml, or the user's own.")  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS), help="Instead of log.level.")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, config: Path | None, log_level: str | None) -> None:
    """Archives the call recordings of the Kore.ai platform: completely, unaltered, accounted for.

    Without any configuration an embedded database and the folder ./archive are used. --config and --log-level may stand before
    the command or after it.
    """
    ctx.obj = {"config": config, "log_level": log_level}


def run() -> NoReturn:
    """Run the command line and exit with its code."""
    from archiver.errors import ArchiverError, ConfigError

    # A crash would leave every secret, and recordings, in a file. The process stays open to its own account's debuggers
    # (PR_SET_DUMPABLE): a hung worker must be looked into without root, and that account can read the secrets' files anyway.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _allow_files()
    _open_standard_streams()
    _escape_what_cannot_be_printed()
    # pydantic would read the metadata of every installed package, in search of plugins that nobody has for it.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        code = cli.main(prog_name="archiver", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(128 + signal.SIGINT)
    except click.ClickException as error:
        from archiver.cli.output import print_error
        from archiver.cli.usage import told

        print_error(*told(error))
        sys.exit(error.exit_code)
    except ArchiverError as error:
        from archiver.cli.output import print_error

        # Several mistakes of a configuration are told in a line each.
        print_error(error.message, error.hint, keep="\n" if isinstance(error, ConfigError) else "")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing more to say, and nobody to say it to.
        _discard_output()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001  # the last catch of all
        sys.exit(_explain(error))


def _allow_files() -> None:
    """As many open files and connections as the system lets this process have: each large recording on its way takes three, and
    the soft limit is 1,024 for the sake of programs that use select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_standard_streams() -> None:
    """A stream that the caller closed (`<&-`) is an empty one; nor may a socket of ours get its number."""
    for name, mode in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, mode)
            setattr(sys, name, os.fdopen(descriptor, "w" if mode == os.O_WRONLY else "r", encoding="utf-8"))


def _escape_what_cannot_be_printed() -> None:
    """No character from outside ends a command: what the output's encoding lacks is printed as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """What is still in the buffer must not fail once more when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: Exception) -> int:
    """Say what nobody foresaw; the exit code."""
    from archiver.cli.output import print_error

    if (
        isinstance(error, OSError)
        and error.filename is None
        and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
    ):
        _discard_output()
        print_error(f"the output cannot be written: {error.strerror}", "free disk space, or send the output elsewhere")
        return 1
    from archiver.observe import logs

    if logs.is_configured():
        logs.logger(__name__).debug("internal_error", exc_info=error)
    print_error(
        f"internal error: {type(error).__name__}: {error}",
        "this is a bug in archiver; run again with --log-level debug for its traceback",
    )
    return 1
