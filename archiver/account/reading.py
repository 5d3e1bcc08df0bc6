"""Reading the platform's listings for several bots, alone or while a worker archives what they add to the queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from archiver.account.discovery import Discovered, Discovery, Listings, Turns
from archiver.archive.context import BotAccess
from archiver.config import BotSettings, Settings, account_budgets
from archiver.errors import KoreError, UsageError
from archiver.kore.listings.calls import Span
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.discoveries import Discoveries
from archiver.queue.reports import Reports
from archiver.queue.sessions import Queue
from archiver.runtime.days import to_instant
from archiver.worker.claiming import Drained
from archiver.worker.loop import Worker

log = logger(__name__)

T = TypeVar("T")

OnStretch = Callable[[Discovered, Span], None]
"""Called after each stretch with what was found so far, and what is left to read."""

OnRefused = Callable[[str, KoreError], None]
"""Called with a bot's name, and the error with which the platform refused it."""


def span_of(bot: BotSettings, start: date | datetime, end: date | datetime | None, now: datetime) -> Span:
    """The time from `start` to `end` (None: now) in the time zone of a bot; the future is left out. Raises UsageError."""
    try:
        span = Span(to_instant(start, bot.zone), min(now, now if end is None else to_instant(end, bot.zone)))
    except ValueError as error:
        raise UsageError(str(error), hint="name a date such as 2026-03-31") from None
    if not span.length:
        until = "now" if end is None else str(end)
        raise UsageError(
            f"no past time lies between {start} and {until} (time zone {bot.time_zone})",
            hint="the end is the first moment that no longer counts: for a whole day, name the next day",
        )
    return span


def listings_of(settings: Settings, database: Database, bots: Mapping[str, BotAccess]) -> dict[str, Listings]:
    """The listings of each bot; those of one account take turns."""
    discoveries = Discoveries(database)
    budgets = account_budgets(settings.bots)
    turns = {budget: Turns(Reports(database), budget.bots) for budget in budgets.values()}
    return {
        name: Listings(access.client, discoveries, turns[budgets[name]], access.sessions_quota, access.quota)
        for name, access in bots.items()
    }


async def each_bot(
    bots: Sequence[BotSettings], work: Callable[[BotSettings], Awaitable[T]], *, on_refused: OnRefused
) -> tuple[list[T], dict[str, str]]:
    """Work for all bots at once; one that the platform refuses does not stop the others. Returns the results in the order of the
    bots, and the error of each bot that has none, which `on_refused` gets too. Raises DatabaseError: that concerns all.
    """
    done: dict[str, T] = {}
    failed: dict[str, str] = {}

    async def one(bot: BotSettings) -> None:
        try:
            done[bot.name] = await work(bot)
        except KoreError as error:
            failed[bot.name] = error.message
            on_refused(bot.name, error)

    try:
        async with asyncio.TaskGroup() as group:
            for bot in bots:
                group.create_task(one(bot))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [done[bot.name] for bot in bots if bot.name in done], failed


@dataclass(frozen=True)
class ReadingTerms:
    """How listings are read. `actor`: who has it done, for the history. `newest_first`: None begins at the end that is the more
    urgent, see `reads_newest_first`. `until_now`: its end was left open, so that one that was broken off ended earlier.
    """

    settings: Settings
    database: Database
    queue: Queue
    purpose: str
    actor: str
    priority: str = "normal"
    newest_first: bool | None = False
    afresh: bool = False
    until_now: bool = False

    def reads_newest_first(self, bot: BotSettings) -> bool:
        """Whether a bot's listing is read from its end back: unless it was said, where the platform is not known to delete its
        oldest recordings.
        """
        return bot.source_retention is None if self.newest_first is None else self.newest_first

    async def read(self, listings: Listings, span: Span, on_stretch: OnStretch) -> Discovered:
        """Put the calls of `span` into the queue, when no other process is at it for the same purpose."""
        bot = listings.bot.name
        discoveries = Discoveries(self.database)
        discovery = Discovery(discoveries, keep=self.settings.discovery.keep, actor=f"{self.purpose} by {self.actor}")

        def wait() -> None:
            log.warning("discovery_awaited", bot=bot, for_="another process that reads the same bot's listings")

        async with self.database.alone(f"{self.purpose} {bot}", on_wait=wait):
            newest_first = self.reads_newest_first(listings.bot)
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
                        on_stretch=on_stretch,
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
    listings: Mapping[str, Listings],
    worker: Worker,
    bots: Sequence[BotSettings],
    spans: Mapping[str, Span],
    received: list[int],
    *,
    on_stretch: OnStretch,
    on_refused: OnRefused,
    max_wait: timedelta | None,
    night: bool = False,
    beside: Coroutine[Any, Any, None] | None = None,
) -> Shift:
    """Put each bot's calls into the queue, and archive what is in it meanwhile: a bot that has to wait stops no other. Ends when
    all is read and drained, or the worker was stopped: `received` has the signals that did. `beside` runs until then.
    """

    async def read(bot: BotSettings) -> Discovered:
        return await reading.read(listings[bot.name], spans[bot.name], on_stretch)

    feeding = asyncio.create_task(each_bot(bots, read, on_refused=on_refused), name="discovery")
    tasks = [feeding, *([asyncio.create_task(beside, name="progress")] if beside is not None else [])]
    try:
        drained = await worker.run(drain=True, max_wait=max_wait, feeding=feeding, night=night)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return Shift(received, drained) if received else Shift(received, drained, *feeding.result())
