"""What the commands that read the platform's listings share: their options, their spans of time, one reading a bot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from archiver.account.discovery import Discovered, Listings
from archiver.account.reading import ReadingTerms, Shift, listings_of, read_and_work
from archiver.cli.call_times import BOUND
from archiver.cli.compose import NO_BOT, TEXT
from archiver.cli.monitor import Monitor
from archiver.cli.output import print_error, printable, told
from archiver.cli.processes import Processes
from archiver.cli.sealing import drained_and_sealed
from archiver.cli.serving import bot_access, composed_worker, stop_on_signals
from archiver.config import BotSettings, Settings
from archiver.errors import ConfigError, DatabaseError, KoreError
from archiver.kore.listings.calls import Span
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.deadlines import HINT, read_deadlines

F = TypeVar("F", bound=Callable[..., Any])

bots_option = click.option("--bot", "names", type=TEXT, multiple=True, help="Only this bot; may be repeated. Default: all.")


def span_options(what: str) -> Callable[[F], F]:
    """--from and --to, of `what`."""

    def add(command: F) -> F:
        until = click.option("--to", "end", type=BOUND, help="The first moment that no longer counts. Default: now.")
        help_ = f"{what} that began at this moment or later: ISO 8601; a date is its first moment in the bot's time zone."
        since = click.option("--from", "start", type=BOUND, required=True, help=help_)
        return since(until(command))

    return add


def select_bots(settings: Settings, names: tuple[str, ...]) -> list[BotSettings]:
    """The bots that --bot names, or all. Raises ConfigError."""
    if not settings.bots:
        raise ConfigError("no bot is configured: there is nothing to list", hint=NO_BOT)
    return [settings.bot(name) for name in dict.fromkeys(names)] or list(settings.bots)


@asynccontextmanager
async def opened_listings(
    settings: Settings, database: Database, tally: Tally | None = None
) -> AsyncIterator[dict[str, Listings]]:
    """The listings of each bot; the `tally` counts the calls."""
    async with bot_access(settings, database, tally) as bots:
        yield listings_of(settings, database, bots)


async def work_with_listings(
    reading: ReadingTerms,
    bots: Sequence[BotSettings],
    spans: Mapping[str, Span],
    *,
    others: Processes,
    monitor: Monitor,
    max_wait: timedelta | None,
    night: bool = False,
    watch: Callable[[Progress], Coroutine[Any, Any, None]] | None = None,
) -> Shift:
    """`reading.read_and_work` with a worker of this process and the `others` beside it, bars, and signals that stop them. `watch`
    may show how far it is.
    """
    settings, database, queue = reading.settings, reading.database, reading.queue
    tally = Tally()
    async with (
        opened_listings(settings, database, tally) as listings,
        composed_worker(settings, database, queue, tally, monitor=monitor) as worker,
    ):
        with bars() as progress, stop_on_signals(worker) as received:
            async with others.beside(worker):
                shift = await read_and_work(
                    reading,
                    listings,
                    worker,
                    bots,
                    spans,
                    received,
                    on_stretch=ListingProgress(progress).show,
                    on_refused=print_refusal,
                    max_wait=max_wait,
                    night=night,
                    beside=watch(progress) if watch is not None else None,
                )
        return replace(shift, drained=await drained_and_sealed(worker.sealer, shift.drained, shift.received))


def print_refusal(bot: str, error: KoreError) -> None:
    """To standard error, why the platform refused a bot."""
    print_error(f"bot {bot}: {error.message}", error.hint)


class ListingProgress:
    """A bar a bot on standard error, if that is a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, found: Discovered, left: Span) -> None:
        """Show what was found so far, and what is left to read."""
        if found.bot not in self._tasks:
            self._tasks[found.bot] = self._progress.add_task(
                f"reading {printable(found.bot)}", total=found.span.length.total_seconds(), told=""
            )
        done = found.span.length - left.length
        self._progress.update(self._tasks[found.bot], completed=done.total_seconds(), told=f"{found.calls:,} calls")


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Progress]:
    """Bars on standard error while this lasts, if it is a terminal: what, how far, the field `told`, the time left."""
    errors = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn()
    disable = quiet or not errors.is_terminal
    with Progress(*columns, console=errors, transient=True, disable=disable, speed_estimate_period=600) as progress:
        yield progress


async def warn_of_deadlines(database: Database, bots: Sequence[BotSettings]) -> None:
    """To standard error, a line for each bot of whose waiting sessions the platform deletes some before they can be archived. No
    work waits for such a figure: where it cannot be had, that is the line.
    """
    try:
        deadlines = await read_deadlines(database, bots)
    except DatabaseError as error:
        click.echo(f"warning: what will be deleted before it can be archived is not known: {printable(error.message)}", err=True)
        return
    for each in deadlines:
        if each.warning:
            click.echo(f"warning: bot {printable(each.bot)}: {each.warning}; next: {HINT}", err=True)


def developers_line(count: int) -> str:
    """What a person is told of sessions that developers made."""
    return f"  among them, tests of developers: {count:,}"


def print_problems(problems: Sequence[Mapping[str, Any]]) -> None:
    """To standard error, a line each."""
    for problem in problems:
        facts = ", ".join(f"{key} {told(value)}" for key, value in problem.items() if key not in ("problem", "from", "to"))
        click.echo(
            f"{problem['problem']} from {told(problem['from'])} to {told(problem['to'])}"
            + (f": {printable(facts)}" if facts else ""),
            err=True,
        )
