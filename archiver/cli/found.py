"""What `list` and `find` share: the options that choose sessions, and how what was found is shown."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import click

from archiver.cli.call_times import call_time_options, call_times
from archiver.cli.compose import TEXT, check_bot_was_meant, opened_database
from archiver.cli.output import BATCH, print_csv, print_rows, size
from archiver.cli.progress import counting
from archiver.config import Settings
from archiver.observe.redact import redact_each
from archiver.queue.call_facts import agents_of, number_of
from archiver.queue.search import Chosen, FoundSession, People, Search
from archiver.session import State

F = TypeVar("F", bound=Callable[..., Any])

FIRST = 50
"""Sessions that a table shows, unless --limit says how many."""

COLUMNS = (
    "called_at", "bot", "session_id", "kind", "state", "reason", "caller", "callee", "agents", "user_id", "started_at",
    "ended_at", "files", "bytes", "seconds", "accepted_at", "accepted_by", "accept_reason",
)  # fmt: skip


def choice_options(command: F) -> F:
    """Those of both commands. --from and --to come as `start` and `end`."""
    states = click.Choice([state.value for state in State])
    limit = f"At most so many. Default: {FIRST} in a table, else all."
    form = click.Choice(["table", "csv", "jsonl"])
    for option in (
        click.option("--limit", type=click.IntRange(1), help=limit),
        click.option("--format", "form", type=form, default="table", show_default=True, help="jsonl: a JSON document a line."),
        click.option("--reason", "reasons", type=TEXT, multiple=True, help="Only those with this reason; may be repeated."),
        click.option("--kind", "kinds", type=TEXT, multiple=True, help="Only this kind."),
        click.option("--bot", "bots", type=TEXT, multiple=True, help="Only this bot's; may be repeated."),
        click.option("--state", "states", type=states, multiple=True, help="Only those in this state; may be repeated."),
        call_time_options,
    ):
        command = option(command)
    return command


def chosen_of(
    settings: Settings,
    *,
    states: tuple[str, ...],
    bots: tuple[str, ...],
    kinds: tuple[str, ...],
    reasons: tuple[str, ...],
    start: date | datetime | None,
    end: date | datetime | None,
) -> Chosen:
    """What these options choose. Raises UsageError."""
    return Chosen(bots, kinds, states, reasons, call_times(settings, start, end))


async def show_found(settings: Settings, chosen: Chosen, people: People | None, *, limit: int | None, form: str) -> None:
    """Find them and print them, as they come but for the table."""
    count = FIRST if form == "table" and limit is None else limit
    async with opened_database(settings, writes=False) as database:
        # One more shows that there are more.
        most = None if count is None else count + (form == "table")
        # What is printed on a terminal shows by itself how far it is.
        quiet = form == "table" or sys.stdout.isatty()
        with counting("found", quiet=quiet) as show:
            async with aclosing(Search(database).find(chosen, people, limit=most)) as found:
                match form:
                    case "csv":
                        shown = await _print_csv(found, show)
                    case "jsonl":
                        shown = await _print_lines(found, show)
                    case _:
                        assert count is not None
                        shown = _print_table([each async for each in found], count, spoken=people is not None)
    if not shown:
        for bot in chosen.bots:
            check_bot_was_meant(settings, bot, 0)


async def _print_csv(found: AsyncIterator[FoundSession], show: Callable[[str, int], None]) -> int:
    shown = 0
    print_csv(COLUMNS, ())
    async for some in _in_batches(found):
        documents = map(as_document, some)
        rows = [document | {"agents": "; ".join(document["agents"])} for document in documents]
        print_csv(None, [[row[column] for column in COLUMNS] for row in rows])
        shown += len(some)
        show("found", shown)
    return shown


async def _print_lines(found: AsyncIterator[FoundSession], show: Callable[[str, int], None]) -> int:
    shown = 0
    async for some in _in_batches(found):
        documents = redact_each([as_document(each) for each in some])
        click.echo("".join(f"{json.dumps(document, default=str)}\n" for document in documents), nl=False)
        shown += len(some)
        show("found", shown)
    return shown


async def _in_batches(found: AsyncIterator[FoundSession]) -> AsyncIterator[list[FoundSession]]:
    """As they come; between them a signal is heard."""
    some: list[FoundSession] = []
    async for each in found:
        some.append(each)
        if len(some) == BATCH:
            yield some
            some = []
            await asyncio.sleep(0)
    if some:
        yield some


def _print_table(found: list[FoundSession], count: int, *, spoken: bool) -> int:
    if not found:
        click.echo("no session found")
        return 0
    rows = []
    for each in found[:count]:
        state = f"{each.state}: {each.reason}" if each.reason else each.state
        state += " (accepted)" if each.accepted_at is not None else ""
        people = (number_of(each.call) or each.user_id or "", ", ".join(agents_of(each.call))) if spoken else ()
        seconds = "" if each.seconds is None else f"{each.seconds:.0f}"
        called_at = f"{each.called_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        rows.append([called_at, each.session_id, each.bot, state, *people, seconds])
    who = ("caller", "agent") if spoken else ()
    columns = ("call (UTC)", "session", "bot", "state", *who, "seconds")
    print_rows(columns, rows, right=[len(columns) - 1], head=2)
    sessions, files = len(rows), sum(each.files for each in found[:count])
    stored = size(sum(each.bytes for each in found[:count]))
    click.echo(f"{_counted(sessions, 'session')}, {_counted(files, 'recording')}, {stored}")
    if len(found) > count:
        click.echo(f"more than {count:,}: --limit shows more, --format csv or jsonl all of them")
    return len(found)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def as_document(found: FoundSession) -> dict[str, Any]:
    """JSON."""

    def told(moment: datetime | None) -> str | None:
        return None if moment is None else moment.astimezone(UTC).isoformat()

    call = found.call
    return {
        "called_at": told(found.called_at),
        "bot": found.bot,
        "session_id": found.session_id,
        "kind": found.kind,
        "state": found.state,
        "reason": found.reason,
        "caller": call.get("caller"),
        "callee": call.get("callee"),
        "agents": agents_of(call),
        "user_id": found.user_id,
        "started_at": told(found.started_at),
        "ended_at": told(found.ended_at),
        "files": found.files,
        "bytes": found.bytes,
        "seconds": None if found.seconds is None else round(found.seconds, 3),
        "accepted_at": told(found.accepted_at),
        "accepted_by": found.accepted_by,
        "accept_reason": found.accept_reason,
    }
