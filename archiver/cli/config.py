"""`archiver config`."""

from __future__ import annotations

from typing import Any

import click

from archiver.cli.output import json_option, print_json, printable
from archiver.config import Loaded, read
from archiver.errors import ConfigError


@click.group(short_help="Check the configuration, or show what is in force: `config check`.")
def command() -> None:
    """Check the configuration, or show what is in force. Neither needs a network or a database.

    Exit codes: 0 done; 2 the configuration is wrong.
    """


@command.command(short_help="Find every mistake that can be found without a network.")
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Find every mistake that can be found without a network, and tell them together: first those of keys and values; once there
    are none, files with secrets that cannot be read, keys that cannot sign, extras that are not installed. Warnings are no
    mistakes, such as of a file with secrets that others can read. `archiver doctor` tries what this cannot: database, store and
    platform.

    Exit codes: 0 no mistake; 2 mistakes.
    """
    loaded, mistakes, warnings = _checked(ctx)
    source = loaded.settings.source if loaded is not None else None
    if as_json:
        print_json({"ok": not mistakes, "source": source, "mistakes": mistakes, "warnings": warnings})
    else:
        for told, found in (("error", mistakes), ("warning", warnings)):
            for each in found:
                click.echo(printable(f"{told}: {each['message']}", keep="\n"), err=told == "error")
                if each["hint"]:
                    click.echo(printable(f"  next: {each['hint']}"), err=told == "error")
        if not mistakes and loaded is not None:
            click.echo(printable(f"{source}: no mistake, {len(loaded.settings.bots)} bot(s)"))
    if mistakes:
        raise click.exceptions.Exit(2)


def _checked(ctx: click.Context) -> tuple[Loaded | None, list[dict[str, str]], list[dict[str, str]]]:
    try:
        loaded = read(ctx.obj["config"])
    except ConfigError as error:
        # One error has a line for each mistake.
        first, *lines = error.message.split("\n")
        messages = [f"{first}{line.strip()}" for line in lines] or [first]
        return None, [{"message": each, "hint": error.hint} for each in messages], []
    from archiver.health.configuration import check_offline
    from archiver.observe import logs

    logs.configure(level="error", form="auto")  # what is lowered or missing is told here, not logged
    found = check_offline(loaded.settings)

    def of(verdict: str) -> list[dict[str, str]]:
        return [{"message": _told(each.check, each.message), "hint": each.hint} for each in found if each.verdict == verdict]

    return loaded, of("failure"), of("warning")


def _told(check: str, message: str) -> str:
    return message if check == "configuration" else f"{check}: {message}"


@command.command(short_help="Show every key with its value in force and where that comes from.")
@json_option
@click.pass_context
def show(ctx: click.Context, as_json: bool) -> None:
    """Show every key with its value in force and where that comes from: the default, a file and line, or a variable of the
    environment. What is printed is TOML that `--config` would take, but for the secrets, which are masked. Of a file that a key
    names and that is not there only the folder is shown: the value may be the secret itself.

    Exit codes: 0 done; 2 the configuration is wrong.
    """
    from archiver.config.showing import as_toml, show

    loaded = read(ctx.obj["config"])
    if as_json:
        document: dict[str, Any] = {"source": loaded.settings.source, "keys": {}}
        for each in show(loaded):
            document["keys"][each.key] = {"value": each.value, "source": each.source}
        print_json(document)
        return
    for line in as_toml(show(loaded)):
        click.echo(line)
