"""`archiver status`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from archiver.account.status import STATES, pause_after, status_document
from archiver.cli.compose import DURATION, opened_database, run_async, settings_of
from archiver.cli.evidence_line import evidence_line
from archiver.cli.output import console, fitting, folded, json_option, lasting, moment, print_json, printable, safe, size, table
from archiver.config import Settings
from archiver.postgres.database import Database
from archiver.queue.findings import NEXT_FOR_DAMAGED, DamagedSessions
from archiver.queue.notifications import line_of
from archiver.queue.pace import COUNTED

if TYPE_CHECKING:  # rich is imported when something is drawn
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

SHORTEST_PAUSE = timedelta(milliseconds=100)

LISTED = 20
"""So many transfers are shown to people where the height of a terminal sets no bound."""

FEWEST = 3
"""So many transfers are shown however low the terminal is."""


@click.command(short_help="Count sessions by state; show rates, holds and workers.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option("--every", type=DURATION, help="With --watch: the pause between two looks. Default: 2s.")
@json_option
@click.pass_context
def command(ctx: click.Context, watch: bool, every: timedelta | None, as_json: bool) -> None:
    """Count sessions by bot and state, say why some ended without a recording, how fast it goes and how long what waits will
    take, and show holds, pauses, workers, and how far each recording is that takes longer than two seconds.

    With --watch a terminal is redrawn; elsewhere every look prints one line, with --json one JSON document in a line. The pause
    between two looks is at least ten times what the last one took the database.

    Exit codes: 0; 1 the database cannot be used; 2 usage or configuration; 129, 130, 143 a watch that was stopped by a signal.
    """
    if every is not None and not watch:
        raise click.UsageError("--every goes with --watch")
    if every is not None and every < SHORTEST_PAUSE:
        raise click.BadParameter("must be at least 100ms", param_hint="--every")
    settings = settings_of(ctx)
    if watch:
        run_async(_watch(settings, every or timedelta(seconds=2), as_json))
        return
    document = run_async(_status(settings))
    if as_json:
        print_json(document)
    else:
        print_status(document)


async def _status(settings: Settings) -> dict[str, Any]:
    async with opened_database(settings, writes=False) as database:
        return await status_document(database, settings.bots)


async def _watch(settings: Settings, every: timedelta, as_json: bool) -> None:
    out = console()
    async with opened_database(settings, writes=False) as database:
        if as_json or not out.is_terminal:
            while True:
                document, pause = await _look(database, settings, every)
                if as_json:
                    print_json(document, indent=None)
                else:
                    click.echo(_line(document))
                await asyncio.sleep(pause)
        from rich.console import Group
        from rich.live import Live

        with Live(console=out, auto_refresh=False) as live:
            while True:
                document, pause = await _look(database, settings, every)
                live.update(Group(*_blocks(document, out.width, _room(out, document))), refresh=True)
                await asyncio.sleep(pause)


async def _look(database: Database, settings: Settings, every: timedelta) -> tuple[dict[str, Any], float]:
    """The status, and the seconds to leave the database alone."""
    began = time.monotonic()
    document = await status_document(database, settings.bots)
    return document, pause_after(time.monotonic() - began, every)


def print_status(document: dict[str, Any]) -> None:
    """The same for people."""
    out = console()
    for block in _blocks(document, out.width, LISTED):
        # No word is broken, nor a next step: what is copied from a narrow terminal must not come in pieces.
        out.print(_folded(block, out.width) if isinstance(block, str) else block, soft_wrap=isinstance(block, str))


def _folded(lines: str, width: int) -> str:
    return "\n".join(line if line.startswith("  ") else folded(line, width) for line in lines.split("\n"))


def _room(out: Console, document: dict[str, Any]) -> int:
    """How many transfers fit on the terminal beside all that is shown anyway; a few, even if they don't."""
    others = sum(len(out.render_lines(block)) for block in _blocks(document, out.width, 0))
    return max(FEWEST, out.height - others - 4)  # an empty line, the heading, how many are left out, the cursor


def _blocks(document: dict[str, Any], width: int, transfers: int) -> Iterator[Table | str]:
    """What people see, from top to bottom, with so many transfers at most."""
    yield _counts(document, width)
    recorded = lasting(document["recorded_seconds"])
    yield f"{document['recordings']:,} recordings, {size(document['bytes'])}, {recorded} of sound"
    if oldest := document["oldest_verification"]:
        yield f"oldest verification: {lasting(oldest['seconds'])} ago (`archiver verify`; archiving counts as one)"
    if (damaged := DamagedSessions(**document["damaged"])).open:
        yield f"damaged: {damaged.told}; next: {NEXT_FOR_DAMAGED}"
    if accepted := document["accepted"]:
        yield f"{accepted:,} failed, mismatched or damaged sessions are accepted as they are"
    if document["notifications"] and (waiting := line_of(document["notifications"])):
        yield f"messages to the receiver: {safe(waiting)} (`archiver doctor --notify` tries it)"
    days = [f"{safe(name)} {bot['last_complete_day']}" for name, bot in document["bots"].items() if bot["last_complete_day"]]
    yield evidence_line(document["evidence"])
    if days:
        yield f"last complete day: {', '.join(days)} (`archiver nights`)"
    if again := document["rechecks"]["waiting"]:
        next_at = moment(document["rechecks"]["next_at"])
        yield f"{again:,} of the unavailable will be asked for again, the next one at {next_at}, or when nothing else is due"
    for warning in document["warnings"]:
        yield f"warning: bot {safe(warning['bot'])}: {warning['message']}; next: {warning['hint']}"
    yield ""
    yield "archived / unavailable / failed:"
    yield _rates(document, width)
    for left in document["time_left_without"]:
        yield f"not counted in it: {left['sessions']:,} of {safe(left['bot'])} ({safe(left['kind'])}): {left['because']}"
    if document["transfers"]["running"] and transfers:
        yield ""
        yield from _transfers(document, width, transfers)
    if document["reasons"]:
        rows = [(row["state"], safe(row["reason"]), f"{row['sessions']:,}") for row in document["reasons"]]
        yield ""
        yield fitting(width, ("state", "reason", "sessions"), rows, right=[2])
    yield from _fleet(document)


def _counts(document: dict[str, Any], width: int) -> Table | str:
    rows = [
        (name, *(f"{counts['sessions'][state]:,}" for state in STATES), f"{counts['api_calls']:,}")
        for name, counts in _by_bot(document)
    ]
    return fitting(width, ("bot", *STATES, "API calls"), rows, right=range(1, len(STATES) + 2))


def _rates(document: dict[str, Any], width: int) -> Table | str:
    rows = []
    for name, counts in _by_bot(document):
        pace = counts["rates"]
        calls = "" if pace["api_calls_minute"] is None else f"{pace['api_calls_minute']:,}"
        rows.append((name, _ended(pace["minute"]), _ended(pace["ten_minutes"]), calls, lasting(counts["time_left_seconds"])))
    columns = ("bot", "last minute", "last 10 minutes", "API calls a minute", "time left")
    return fitting(width, columns, rows, right=range(1, 5))


def _transfers(document: dict[str, Any], width: int, most: int) -> Iterator[Table | str]:
    """The large transfers of all workers, those that have been on their way longest first."""
    every = sorted((one for worker in document["workers"] for one in worker["transfers"]), key=lambda one: -one["seconds"])
    # Names give way, never the figures, and each transfer keeps to its line.
    room = max(24, width - 56)
    widths = {"bot": min(12, room // 4), "session_id": room * 3 // 8, "file_name": room * 3 // 8}
    shown = table("bot", "session", "file", "received", "", "a second", "time left", right=range(3, 7))
    for column in shown.columns:
        column.no_wrap = True
    for one in every[:most]:
        of = "" if one["total"] is None else f" of {size(one['total'])}"
        shown.add_row(*(_cut(one[key], cells) for key, cells in widths.items()), f"{size(one['bytes'])}{of}",
                      "" if one["percent"] is None else f"{one['percent']:.0f} %", size(one["bytes_per_second"]),
                      lasting(one["time_left_seconds"]))  # fmt: skip
    yield shown
    if left_out := document["transfers"]["running"] - len(every[:most]):
        yield f"and {left_out:,} more; all together {_sum(document['transfers'])}"


def _cut(name: str, cells: int) -> Text:
    from rich.text import Text

    text = Text(printable(name))
    text.truncate(cells, overflow="ellipsis")
    return text


def _sum(transfers: dict[str, Any]) -> str:
    """412.0 MB of 600.0 MB, 38.1 MB/s."""
    of = "" if transfers["total"] is None else f" of {size(transfers['total'])}"
    return f"{size(transfers['bytes'])}{of}, {size(transfers['bytes_per_second'])}/s"


def _by_bot(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, counts in document["bots"].items():
        yield safe(name), counts
    if len(document["bots"]) != 1:
        yield "all", document


def _ended(counts: dict[str, int]) -> str:
    return " / ".join(f"{counts[state]:,}" for state in COUNTED)


def _fleet(document: dict[str, Any]) -> Iterator[str]:
    for hold in document["holds"]:
        message = hold["detail"].get("message", "")
        why = f"{safe(hold['reason'])}: {safe(message)}"
        yield f"held: {safe(hold['bot'])} ({safe(hold['kind'])}) since {moment(hold['since'])}: {why}"
        if hold["detail"].get("hint"):
            yield f"  next: {safe(hold['detail']['hint'])}"
    for pause in document["pauses"]:
        name = safe(pause["bot"])
        yield f"paused: {name} since {moment(pause['since'])} by {safe(pause['by'])} (`archiver resume --bot {name}`)"
    for blocked in document["blocked"]:
        yield f"rate limit reached: {safe(blocked['budget'])} until {moment(blocked['until'])}"
    for worker in document["workers"]:
        state = "alive" if worker["alive"] else "DEAD, its sessions are about to be taken over"
        host = f"on {safe(worker['host'])}" if worker["host"] is not None else "off the list"
        since = f", since {moment(worker['started_at'])}" if worker["started_at"] is not None else ""
        yield f"worker {worker['id']} {host}: {state}, holds {worker['claimed']}{since}"


def _line(document: dict[str, Any]) -> str:
    """All that matters, in one line."""
    counts = ", ".join(f"{state} {document['sessions'][state]}" for state in STATES)
    rates = _ended(document["rates"]["minute"])
    alive = sum(worker["alive"] for worker in document["workers"])
    dead = len(document["workers"]) - alive
    running = document["transfers"]["running"]
    return (
        f"{moment(document['at'])} {counts}; archived / unavailable / failed in the last minute {rates}; "
        f"time left {lasting(document['time_left_seconds'])}; workers {alive}"
        + (f", dead {dead}" if dead else "")
        + (f"; transfers {running}, {_sum(document['transfers'])}" if running else "")
        + (f"; damaged {document['damaged']['open']}" if document["damaged"]["open"] else "")
        + (f"; holds {len(document['holds'])}" if document["holds"] else "")
        + (f"; paused {len(document['paused'])}" if document["paused"] else "")
    )
