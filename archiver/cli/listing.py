"""What the commands that read the platform's listings share: their options, their spans of time, one reading a bot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from archiver.account.discovery import Discovered, Discovery, Listings, Turns
from archiver.cli.compose import TEXT, actor
from archiver.cli.output import printable, tell_error
from archiver.cli.serving import bot_access, composed_worker, stop_on_signals
from archiver.config import BotSettings, Settings, account_budgets
from archiver.errors import ConfigError, DatabaseError, KoreError, UsageError
from archiver.kore.listings.calls import Span
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.deadlines import HINT, read_deadlines
from archiver.queue.discoveries import Discoveries
from archiver.queue.reports import Reports
from archiver.queue.sessions import Queue
from archiver.runtime.days import parse_moment, to_instant
from archiver.worker.claiming import Drained

log = logger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class _Bound(click.ParamType[date | datetime]):
    name = "TIME"

    def convert(self, value: str | date | datetime, param: click.Parameter | None, ctx: click.Context | None) -> date | datetime:
        if not isinstance(value, str):
            return value
        try:
            return parse_moment(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


BOUND = _Bound()

bots_option = click.option("--bot", "names", type=TEXT, multiple=True, help="Only this bot; may be repeated. Default: all.")


def span_options(what: str) -> Callable[[F], F]:
    """--from and --to, of `what`."""

    def add(command: F) -> F:
        until = click.option("--to", "end", type=BOUND, help="The first moment that no longer counts. Default: now.")
        help_ = f"{what} that began at this moment or later: ISO 8601; a date is its first moment in the bot's time zone."
        since = click.option("--from", "start", type=BOUND, required=True, help=help_)
        return since(until(command))

    return add


def chosen_bots(settings: Settings, names: tuple[str, ...]) -> list[BotSettings]:
    """The bots that --bot names, or all. Raises ConfigError."""
    if not settings.bots:
        raise ConfigError("no bot is configured: nobody's calls can be listed", hint="add a [[bots]] block to the configuration")
    return [settings.bot(name) for name in dict.fromkeys(names)] or list(settings.bots)


def span_of(bot: BotSettings, start: date | datetime, end: date | datetime | None, now: datetime) -> Span:
    """What --from and --to mean for a bot; what has not happened yet is left out. Raises UsageError."""
    try:
        span = Span(to_instant(start, bot.zone), min(now, now if end is None else to_instant(end, bot.zone)))
    except ValueError as error:
        raise UsageError(str(error), hint="name a date such as 2026-03-31") from None
    if not span.length:
        until = "now" if end is None else str(end)
        raise UsageError(
            f"nothing lies between --from {start} and --to {until}, as far as it has happened (time zone {bot.time_zone})",
            hint="--to is the first moment that no longer counts: for a whole day, name the next day",
        )
    return span


@asynccontextmanager
async def opened_listings(settings: Settings, database: Database, queue: Queue) -> AsyncIterator[dict[str, Listings]]:
    """The listings of each bot."""
    async with bot_access(settings, database) as bots:
        discoveries = Discoveries(database)
        budgets = account_budgets(settings.bots)
        turns = {budget: Turns(Reports(database), budget.bots) for budget in budgets.values()}
        yield {
            name: Listings(access.client, discoveries, turns[budgets[name]], access.sessions_quota, access.quota)
            for name, access in bots.items()
        }


async def each_bot(bots: Sequence[BotSettings], work: Callable[[BotSettings], Awaitable[T]]) -> tuple[list[T], dict[str, str]]:
    """Work for all bots at once; one that the platform refuses does not stop the others. Returns what came of each, in their
    order, and of those of which nothing did, why: they have been complained of. Raises DatabaseError: that concerns all.
    """
    done: dict[str, T] = {}
    failed: dict[str, str] = {}

    async def one(bot: BotSettings) -> None:
        try:
            done[bot.name] = await work(bot)
        except KoreError as error:
            failed[bot.name] = error.message
            tell_error(f"bot {bot.name}: {error.message}", error.hint)

    try:
        async with asyncio.TaskGroup() as group:
            for bot in bots:
                group.create_task(one(bot))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [done[bot.name] for bot in bots if bot.name in done], failed


@dataclass(frozen=True)
class ReadingTerms:
    """How a command has the listings read. `newest_first`: None begins at the end that is the more urgent, see `order_of`.
    `until_now`: its end was left open, so that one that was broken off ended earlier.
    """

    settings: Settings
    database: Database
    queue: Queue
    purpose: str
    priority: str = "normal"
    newest_first: bool | None = False
    afresh: bool = False
    until_now: bool = False

    def order_of(self, bot: BotSettings) -> bool:
        """Whether a bot's listing is read from its end back: unless it was said, where the platform is not known to delete its
        oldest recordings.
        """
        return bot.source_retention is None if self.newest_first is None else self.newest_first

    async def read(self, listings: Listings, span: Span, progress: ListingProgress) -> Discovered:
        """Put the calls of `span` into the queue, when no other process is at it for the same purpose."""
        bot = listings.bot.name
        discoveries = Discoveries(self.database)
        discovery = Discovery(self.queue, discoveries, keep=self.settings.discovery.keep, actor=f"{self.purpose} by {actor()}")

        def wait() -> None:
            log.warning("discovery_awaited", bot=bot, for_="another process that reads the same bot's listings")

        async with self.database.alone(f"{self.purpose} {bot}", on_wait=wait):
            newest_first = self.order_of(listings.bot)
            spans = await self._spans(discoveries, bot, span, newest_first)
            found = Discovered(bot, spans[0])
            for part in spans:
                found.add(
                    await discovery.run(
                        listings,
                        part,
                        purpose=self.purpose,
                        priority=self.priority,
                        newest_first=newest_first,
                        afresh=self.afresh,
                        on_stretch=progress.tell,
                    )
                )
            return found

    async def _spans(self, discoveries: Discoveries, bot: str, span: Span, newest_first: bool) -> list[Span]:
        """What is to be read one after the other: a reading until now that was broken off, and what has come since."""
        if not self.until_now or self.afresh:
            return [span]
        broken = await discoveries.find_interrupted(bot, self.purpose, span.start, newest_first=newest_first)
        if broken is None or not span.start < broken < span.end:
            return [span]
        spans = [Span(span.start, broken), Span(broken, span.end)]
        return spans[::-1] if newest_first else spans


@dataclass
class Shift:
    """What came of reading listings and working at the same time. `received`: the signals that stopped it, if any did."""

    received: list[int]
    drained: Drained
    found: list[Discovered] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Bots that were refused, and why."""


async def read_and_work(
    reading: ReadingTerms,
    bots: Sequence[BotSettings],
    spans: Mapping[str, Span],
    *,
    max_wait: timedelta | None,
    night: bool = False,
    watch: Callable[[Progress], Coroutine[Any, Any, None]] | None = None,
) -> Shift:
    """Put each bot's calls into the queue, and archive what is in it meanwhile: a bot that has to wait stops no other. Ends when
    all is read and drained. `watch` runs beside it, and may show how far it is.
    """
    settings, database, queue = reading.settings, reading.database, reading.queue
    async with (
        opened_listings(settings, database, queue) as listings,
        composed_worker(settings, database, queue, Tally()) as worker,
    ):
        with bars() as progress, stop_on_signals(worker) as received:
            shown = ListingProgress(progress)

            async def read(bot: BotSettings) -> Discovered:
                return await reading.read(listings[bot.name], spans[bot.name], shown)

            feeding = asyncio.create_task(each_bot(bots, read), name="discovery")
            beside = [asyncio.create_task(watch(progress), name="progress")] if watch is not None else []
            try:
                drained = await worker.run(drain=True, max_wait=max_wait, feeding=feeding, night=night)
            finally:
                for task in (feeding, *beside):
                    task.cancel()
                await asyncio.wait([feeding, *beside])
            return Shift(received, drained) if received else Shift(received, drained, *feeding.result())


class ListingProgress:
    """A bar a bot on standard error, if that is a terminal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def tell(self, found: Discovered, left: Span) -> None:
        """So much was found, so much is left to read."""
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


def described(found: Discovered) -> dict[str, Any]:
    """JSON of what a reading found."""
    return {
        "bot": found.bot,
        "source": found.source,
        "from": found.span.start.isoformat(),
        "to": found.span.end.isoformat(),
        "calls": found.calls,
        "new": found.added,
        "resumed": found.resumed,
        "problems": found.problems,
        "other_channels": dict(found.others),
        "developer_calls": found.developer_calls,
    }


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
        facts = ", ".join(f"{key} {value}" for key, value in problem.items() if key not in ("problem", "from", "to"))
        click.echo(
            f"{problem['problem']} from {problem['from']} to {problem['to']}" + (f": {printable(facts)}" if facts else ""),
            err=True,
        )
