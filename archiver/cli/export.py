"""`archiver export`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from archiver.archive.copies import is_within
from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, check_bot_was_meant, opened_database, run_async, settings_of
from archiver.cli.exporting import NAMES, choice_of, selection_options
from archiver.cli.output import console, counted, json_option, print_error, print_json, safe, size
from archiver.cli.recognising import check_store
from archiver.config import Settings
from archiver.errors import DatabaseError, UsageError
from archiver.evidence.bag.choosing import NOT_SEALED, UNKNOWN, Choice, NothingChosen
from archiver.evidence.bag.whole import Export, Exported, Progress
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores import Store
from archiver.stores.open import open_store

log = logger(__name__)

ENDED = ("archived", "unavailable", "failed", "cancelled")


@click.command(short_help="Hand out sessions with their proofs, as a BagIt bag.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--session", "ids", type=TEXT, multiple=True, metavar="ID", help="This session; may be repeated.")
@click.option("--sessions", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Those that a file lists, one ID a line, or CSV with a column session_id; - for standard input.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Everything that ended.")
@selection_options
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, folder: Path, ids: tuple[str, ...], file: Path | None, everything: bool, as_json: bool, **options: Any
) -> None:
    """Hand out sessions: their recordings, records, and the proofs that these are what was sealed, as a BagIt bag in FOLDER,
    which anybody can verify without this program; VERIFY.md in it says how. Sessions that ended without a recording are in it,
    too: that there is none, is proven as well. account.csv says what became of each session that was chosen.

    An export that was ended goes on with the same command. Nothing is overwritten. That it was done is entered into the ledger
    and into the sessions' history.

    Exit codes: 0 the bag is whole; 1 fatal; 2 usage, configuration, or nothing is sealed; 3 the bag is whole, and sessions that
    were chosen are not in it: each is named.
    """
    settings = settings_of(ctx)
    given = any(options[name] for name in NAMES) or ids or file is not None
    if everything and given:
        raise UsageError("--all and other choices exclude each other", hint="leave --all out: the others choose")
    if not everything and not given:
        raise UsageError("no sessions chosen", hint="choose with --session, --bot, --from, --to and the like, or name --all")
    choice = choice_of(settings, options | ({"states": ENDED} if everything else {}), ids, file)
    if settings.storage.url.startswith("file:") and is_within(folder, settings.storage.folder):
        raise UsageError(
            f"{folder} lies in the archive's own store", hint="choose a folder elsewhere: what is put there harms it"
        )
    exported = run_async(_export(settings, folder, choice, quiet=as_json))
    if as_json:
        print_json(_as_json(exported))
    else:
        _print(exported)
    if exported.left_out:
        raise Incomplete


async def _export(settings: Settings, folder: Path, choice: Choice, *, quiet: bool) -> Exported:
    buffers, network = Buffers(settings.transfer.max_buffer), Network.of(settings.network)
    async with (
        opened_database(settings, writes=False) as database,
        open_store(settings.storage, buffers, network) as store,
    ):

        async def check() -> None:
            await _recognise(settings, database, store)

        await check()
        try:
            with _progress(quiet) as on_progress:
                exported = await Export(database, store, buffers, actor(), on_progress, check).run(folder, choice)
        except NothingChosen:
            for bot in choice.chosen.bots:
                check_bot_was_meant(settings, bot, 0)
            raise
        except asyncio.CancelledError:
            click.echo("ended before the bag is whole: the same command goes on", err=True)
            raise
    return exported


async def _recognise(settings: Settings, database: Database, store: Store) -> None:
    try:
        await check_store(settings, database, store)
    except DatabaseError:  # who may read the archive's tables, and not this one
        log.info("store_not_recognised", hint="grant SELECT on archive_identity to this role")


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TextColumn, TimeElapsedColumn

    errors = Console(stderr=True)
    columns = (TextColumn("{task.description} {task.fields[told]}"), TimeElapsedColumn())
    with Bars(*columns, console=errors, transient=True, disable=quiet or not errors.is_terminal) as bars:
        task = bars.add_task("export", total=None, told="")

        def show(now: Progress) -> None:
            of = "" if now.total is None else f" of {now.total:,}"
            moved = f", {size(now.bytes)} of {size(now.total_bytes)}" if now.total_bytes else ""
            bars.update(task, description=now.what, told=f"{now.done:,}{of}{moved}")

        yield show


def _print(exported: Exported) -> None:
    if exported.sessions:
        _print_bag(exported)
    else:
        click.echo("no bag was made: none of the sessions that were chosen can be handed out", err=True)
    if exported.unrecorded is not None:
        click.echo(f"note: that it was handed out is not recorded: {safe(exported.unrecorded)}", err=True)
    for each in exported.told:
        hint = _HINTS.get(each["why"].partition(":")[0], "")
        whose = " ".join(filter(None, (each["session_id"], each["bot"] and f"of {each['bot']}", each["kind"])))
        print_error(f"{whose} is not in the bag: {each['why']}", hint)
    if exported.left_out > len(exported.told):
        click.echo(f"and {exported.left_out - len(exported.told):,} more: account.csv in the bag names them all", err=True)


def _print_bag(exported: Exported) -> None:
    out = console()
    checkpoint = exported.sealed.checkpoint
    already = f", of which {exported.taken_over:,} were there already" if exported.taken_over else ""
    out.print(
        f"{safe(exported.folder)}: {counted(exported.sessions, 'session')}, {counted(exported.files, 'file')}, "
        f"{size(exported.bytes)}{already}",
        soft_wrap=True,
    )
    out.print(
        f"proven by the ledger of {safe(checkpoint.origin)}, {counted(checkpoint.size, 'entry', 'entries')}", soft_wrap=True
    )
    out.print(f"tagmanifest-sha256.txt has the SHA-256 {exported.manifest_sha256}", soft_wrap=True)
    out.print("check all of it without this program: python3 verify.py in that folder; VERIFY.md says more", soft_wrap=True)
    out.print(
        f"tell whoever gets it, by another way, both this SHA-256 and the key's fingerprint: {exported.sealed.key.fingerprint}",
        soft_wrap=True,
    )


_HINTS = {
    NOT_SEALED: "`archiver seal`, then export it into another folder",
    UNKNOWN: "check the ID, --bot and --kind",
    **dict.fromkeys(
        ("missing", "changed", "unreadable"), "`archiver verify`, `archiver repair`, then export it into another folder"
    ),
}
"""What to do, by what a session was left out for."""


def _as_json(exported: Exported) -> dict[str, Any]:
    checkpoint = exported.sealed.checkpoint
    return {
        "folder": str(exported.folder),
        "origin": checkpoint.origin,
        "entries": checkpoint.size,
        "fingerprint": exported.sealed.key.fingerprint,
        "sessions": exported.sessions,
        "files": exported.files,
        "bytes": exported.bytes,
        "taken_over": exported.taken_over,
        "manifest_sha256": exported.manifest_sha256,
        "recorded": exported.unrecorded is None,
        "left_out": exported.left_out,
        "left_out_first": exported.told,
    }
