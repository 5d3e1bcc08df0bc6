"""What `export` and `sums` share: the sessions that options choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from archiver.cli.call_times import call_time_options
from archiver.cli.compose import TEXT
from archiver.cli.found import chosen_of
from archiver.cli.session_files import open_lines, read_records
from archiver.config import Settings
from archiver.errors import UsageError
from archiver.evidence.bag.choosing import Choice
from archiver.queue.search import People
from archiver.session import State

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("bots", "kinds", "states", "reasons", "start", "end", "caller", "callee", "agent", "user_id")


def selection_options(command: F) -> F:
    """Those of `list` and `find` that choose sessions."""
    states = click.Choice([state.value for state in State])
    number = "at least the last seven digits of the number."
    for option in (
        click.option("--user", "user_id", type=TEXT, metavar="ID", help="Only those with this user_id."),
        click.option("--agent", type=TEXT, metavar="NAME", help="Only those in which this agent spoke: words of a name or ID."),
        click.option("--callee", type=TEXT, metavar="NUMBER", help=f"Only those to this number: {number}"),
        click.option("--caller", type=TEXT, metavar="NUMBER", help=f"Only those from this number: {number}"),
        call_time_options,
        click.option("--reason", "reasons", type=TEXT, multiple=True, help="Only those with this reason; may be repeated."),
        click.option("--state", "states", type=states, multiple=True, help="Only those in this state; may be repeated."),
        click.option("--kind", "kinds", type=TEXT, multiple=True, help="Only this kind."),
        click.option("--bot", "bots", type=TEXT, multiple=True, help="Only this bot's; may be repeated."),
    ):
        command = option(command)
    return command


def choice_of(settings: Settings, options: dict[str, Any], ids: tuple[str, ...] = (), file: Path | None = None) -> Choice:
    """What was chosen. Raises UsageError."""
    chosen = chosen_of(settings, **{name: options[name] for name in ("states", "bots", "kinds", "reasons", "start", "end")})
    people = People(options["caller"], options["callee"], options["agent"], options["user_id"])
    said = {name: _said(options[name]) for name in NAMES if options[name]}
    if not ids and file is None:
        return Choice(said, chosen, None if people.nobody else people)
    if set(said) - {"bots", "kinds"}:
        raise UsageError(
            "sessions that are named by their IDs are not chosen otherwise, but by --bot and --kind",
            hint="leave out --session and --sessions, or the other options",
        )
    if file is None:
        return Choice({**said, "listed": True}, chosen, None, lambda: ids)
    if str(file) == "-" or not file.is_file():
        listed = [*ids, *_ids(file)]  # standard input and pipes can be read once
        return Choice({**said, "listed": True}, chosen, None, lambda: listed)
    return Choice({**said, "listed": True}, chosen, None, lambda: _chained(ids, file))


def _said(value: object) -> object:
    return value.isoformat() if isinstance(value, date | datetime) else value


def _chained(ids: tuple[str, ...], file: Path) -> Iterator[str]:
    yield from ids
    yield from _ids(file)


def _ids(file: Path) -> Iterator[str]:
    """As `enqueue --file` reads them. A line that cannot be read is no reason to leave a session out: raises UsageError."""
    with open_lines(file, "--sessions") as lines:
        for record in read_records(lines):
            if record.values is None or not record.values.get("session_id"):
                raise UsageError(f"--sessions: line {record.line}: {record.error or 'no session ID'}", hint="correct the line")
            if "\0" in record.values["session_id"]:  # which the database cannot even be asked for
                raise UsageError(f"--sessions: line {record.line}: no session ID has a NUL", hint="correct the line")
            yield record.values["session_id"]
