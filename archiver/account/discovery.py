"""Which calls happened: learnt from the platform's listings, put into the queue, with what is known of them.

A stretch of time is read to its end before any of its calls is put into the queue, and noted as read after that: what is broken
off goes on behind the last such stretch, and what is read twice changes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from archiver.config import BotSettings
from archiver.errors import ApiDefect, ApiUnreachable, BudgetSpent, CredentialsRejected, DatabaseUnreachable, RateLimited
from archiver.kore.client import KoreClient
from archiver.kore.listings.calls import UNANSWERED, Call, Page, Span
from archiver.kore.listings.reader import Listing, Reader
from archiver.kore.listings.sources import CallDetails, SessionsHistory, sources_in_use, sources_of
from archiver.observe.logs import logger
from archiver.outcome import MAX_WAIT
from archiver.queue.discoveries import Discoveries, Reading
from archiver.queue.quota import MAX_RETRY_AFTER, Quota
from archiver.queue.reports import Reports
from archiver.queue.sessions import CallFacts, NewSession
from archiver.runtime.retry import retry_transient

log = logger(__name__)

BATCH = 1000
"""Calls that one statement puts into the queue."""

SHARE = 4
"""While sessions are due, a listing that draws from their budget takes one call of so many: it must not stop the recordings."""

PATIENCE = timedelta(minutes=1)
"""How long a listing waits for its budget without a word."""

DEFECTS = 3
"""So often a page is asked for that is none."""

OUTAGE = 900.0
"""Seconds that the platform may be away before a reading is given up; it can be gone on with."""


REFUSED = 26 * 3600.0
"""Seconds after which a page that meets the rate limit is met by it for another reason: no limit is longer than a day. The
reading is given up then, and can be gone on with, as after an outage.
"""


class Turns:
    """The turns of all listings that draw from one budget with the recordings of `bots`: while any of these are due, the listings
    together take one call of SHARE. (Those of this process. Of others nobody knows.)
    """

    def __init__(self, reports: Reports, bots: Collection[str]) -> None:
        self._reports = reports
        self._bots = bots
        self._one_at_a_time = asyncio.Lock()
        self._last = float("-inf")

    async def wait(self, quota: Quota) -> None:
        """Return when one call may be drawn from `quota`."""
        async with self._one_at_a_time:
            if await self._reports.has_due_work(*self._bots):
                wait = self._last + SHARE * quota.seconds_for(1) - time.monotonic()
                await asyncio.sleep(max(wait, 0.0))
            self._last = time.monotonic()


class Listings:
    """What the platform lists of one bot, by the first source of its configuration that its account has and its credentials may
    use.

    One that has told its calls before is not given up for another: they don't tell the same of a call, and what one calls a
    voicemail would be missing from the other's account.
    """

    def __init__(
        self, client: KoreClient, discoveries: Discoveries, turns: Turns, bot_quota: Quota, account_quota: Quota
    ) -> None:
        """`turns`: of those that draw from `account_quota`, as the recordings do."""
        self.bot: BotSettings = client.bot
        self._discoveries = discoveries
        self._turns = turns
        self._bot_quota = bot_quota
        self._account_quota = account_quota
        sources = sources_of(client, sessions=self._draw_of_bot, details=self._draw_of_account)
        self._sources = [_Patient(each, bot_quota if isinstance(each, SessionsHistory) else account_quota) for each in sources]
        self._told: set[str] | None = None
        self._proven = False

    @property
    def source(self) -> str:
        """The name of the source in use."""
        return self._sources[0].source.name

    async def keep_to_what_told(self) -> None:
        """Stay with the source that has told this bot's calls before. Raises DatabaseError."""
        if self._told is None and len(self._sources) > 1:
            self._told = await self._discoveries.sources(self.bot.name)
            self._sources = sources_in_use(self._sources, self._told)

    async def stretches(self, span: Span, *, newest_first: bool = False, facts: bool = True) -> AsyncIterator[Listing]:
        """What `Reader.walk` says, for as long as it takes: waits for the budget, and for a platform that is away for a while.
        Without `facts` nothing of a call is told but when it was. Raises KoreError, DatabaseError.
        """
        await self.keep_to_what_told()
        while True:
            try:
                source = self._sources[0] if facts else self._sources[0].without_facts()
                async for listing in Reader(source).walk(span, newest_first=newest_first):
                    self._proven = True
                    yield listing
            except (CredentialsRejected, ApiDefect) as error:
                # Whatever the first answer is that is no listing: how an account says that it has none is not documented.
                refused = self.source
                if self._proven or len(self._sources) == 1 or refused in await self._discoveries.sources(self.bot.name):
                    raise
                self._sources.pop(0)
                log.warning(
                    "listing_refused",
                    bot=self.bot.name,
                    source=refused,
                    instead=self.source,
                    error=error.message,
                    hint=error.hint,
                )
            else:
                return

    def seconds_for(self, calls: float) -> float:
        """What so many calls of the recordings API take under the limits of the bot's account, in the long run."""
        return self._account_quota.seconds_for(calls)

    async def _draw_of_account(self) -> None:
        await self._turns.wait(self._account_quota)
        await self._account_quota.draw(PATIENCE)

    async def _draw_of_bot(self) -> None:
        if self._bot_quota.key == self._account_quota.key:
            await self._turns.wait(self._bot_quota)
        await self._bot_quota.draw(PATIENCE)


class _Patient:
    """A source whose pages come in the end, if the platform answers at all."""

    def __init__(self, source: SessionsHistory | CallDetails, quota: Quota) -> None:
        self.source = source
        self.name = source.name
        self._quota = quota
        self.grain, self.longest = source.grain, source.longest
        self.wanted, self.most, self.shows_all = source.wanted, source.most, source.shows_all

    def without_facts(self) -> _Patient:
        """The same, that reads of a call only when it was."""
        source = copy(self.source)
        source.facts = False
        return _Patient(source, self._quota)

    async def page(self, span: Span, number: int, seen: int) -> Page:
        waited, defects = 0.0, 0
        refused = float("inf")
        while True:
            try:
                page = await self.source.page(span, number, seen)
                await self._quota.answered()
            except BudgetSpent as error:
                await self._wait(PATIENCE if error.retry_after is None else error.retry_after, error.reason)
            except RateLimited as error:
                refused = min(refused, time.monotonic())
                if time.monotonic() - refused > REFUSED:
                    raise
                wait = await self._quota.block(error.retry_after)
                log.warning("rate_limit_reached", source=self.source.name, wait_seconds=round(wait.total_seconds(), 1))
                if error.retry_after is not None and error.retry_after > MAX_RETRY_AFTER:
                    # It may be the listing's alone: the recordings go on as soon as a probe says so, and this one waits.
                    await self._wait(min(error.retry_after, MAX_WAIT), error.reason)
            except ApiUnreachable as error:
                pause = min(max(waited, 1.0), 60.0)
                if waited + pause > OUTAGE:
                    raise
                await self._wait(timedelta(seconds=pause), error.reason)
                waited += pause
            except ApiDefect as error:
                # Such as a page of a gateway: it may pass by itself.
                defects += 1
                if defects == DEFECTS or error.facts.get("http_status", 0) >= 400:
                    raise
                await self._wait(timedelta(seconds=defects), error.reason)
            else:
                return page

    async def _wait(self, wait: timedelta, because: str) -> None:
        log.warning("listing_delayed", source=self.source.name, because=because, wait_seconds=round(wait.total_seconds(), 1))
        await asyncio.sleep(wait.total_seconds())


@dataclass
class Discovered:
    """What a reading found, all of it, also before it was broken off."""

    bot: str
    span: Span
    source: str = ""
    calls: int = 0
    """Those that began within `span`."""
    added: int = 0
    resumed: bool = False
    problems: list[dict[str, Any]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    """Rows of channels that are not voice, since it was last begun."""
    developer_calls: int = 0
    """Calls that the platform lists as developers' tests, since it was last begun. They are among `calls`."""
    readings: list[int] = field(default_factory=list)
    """What it is noted as, until `Discoveries.finish` is told of them."""

    @property
    def whole(self) -> bool:
        """Whether every call could be seen, as far as anybody can know."""
        return not any(problem["gap"] for problem in self.problems)

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        return {
            "bot": self.bot,
            "source": self.source,
            "from": self.span.start.isoformat(),
            "to": self.span.end.isoformat(),
            "calls": self.calls,
            "new": self.added,
            "resumed": self.resumed,
            "problems": self.problems,
            "other_channels": dict(self.others),
            "developer_calls": self.developer_calls,
        }

    def add(self, other: Discovered) -> None:
        """Count in another one of the same bot, whose time meets this one's."""
        self.span = Span(min(self.span.start, other.span.start), max(self.span.end, other.span.end))
        self.source = other.source
        self.calls += other.calls
        self.added += other.added
        self.resumed = self.resumed or other.resumed
        self.problems += other.problems
        self.others.update(other.others)
        self.developer_calls += other.developer_calls
        self.readings += other.readings


class Discovery:
    """Puts what listings show into the queue."""

    def __init__(self, discoveries: Discoveries, *, keep: Collection[str], actor: str) -> None:
        """`keep`: the facts of a call that may be kept, by name."""
        self._discoveries = discoveries
        self._keep = frozenset(keep)
        self._actor = actor

    async def run(
        self,
        listings: Listings,
        span: Span,
        *,
        purpose: str,
        priority: str = "normal",
        newest_first: bool = False,
        afresh: bool = False,
        on_stretch: Callable[[Discovered, Span], None] = lambda _found, _left: None,
    ) -> Discovered:
        """Read `span` to its end, or go on where such a reading was broken off. After each stretch `on_stretch` is told what was
        found so far, and what is left to read. It stays a reading to be gone on with until `Discoveries.finish`. Raises
        KoreError, DatabaseError: what was read before is kept.
        """
        bot = listings.bot.name
        await listings.keep_to_what_told()
        reading = await self._discoveries.begin(bot, purpose, span.start, span.end, newest_first=newest_first, afresh=afresh)
        found = Discovered(bot, span, "", reading.calls, reading.added, reading.resumed, list(reading.problems))
        found.readings.append(reading.id)
        if reading.resumed:
            log.info("discovery_resumed", bot=bot, at=reading.reached.isoformat(), begun=reading.started_at.isoformat())
        left = Span(span.start, reading.reached) if newest_first else Span(reading.reached, span.end)
        if left.length:
            async for listing in listings.stretches(left, newest_first=newest_first):
                found.source = listings.source
                found.others.update(listing.others)
                found.developer_calls += listing.developer_calls
                found.problems += listing.problems
                for problem in listing.problems:
                    log.warning("listing_problem_found", bot=bot, source=listings.source, **problem)
                reached = listing.span.start if newest_first else listing.span.end
                await self._enqueue(reading, found, listing, reached, priority)
                left = Span(left.start, reached) if newest_first else Span(reached, left.end)
                on_stretch(found, left)
        found.source = listings.source
        log.info("calls_discovered", bot=bot, source=found.source, calls=found.calls, new=found.added)
        return found

    @retry_transient(DatabaseUnreachable)
    async def _enqueue(self, reading: Reading, found: Discovered, listing: Listing, reached: datetime, priority: str) -> None:
        """Put a stretch into the queue, then note that it is there. May be done twice."""
        # Also those that began at another time than was asked for: the platform says that they took place.
        calls = [*listing.calls.values(), *listing.outside.values()]
        added = 0
        for first in range(0, len(calls), BATCH):
            batch = calls[first : first + BATCH]
            added += await self._discoveries.enqueue(
                found.bot,
                [_new_session(found.bot, call, priority) for call in batch],
                [self._known(call) for call in batch],
                lists_unanswered=found.source != SessionsHistory.name,
                actor=self._actor,
            )
        now = found.calls + len(listing.calls), found.added + added
        await self._discoveries.advance(
            reading, reached, calls=now[0], added=now[1], problems=found.problems, source=found.source
        )
        found.calls, found.added = now

    def _known(self, call: Call) -> CallFacts:
        # That nobody answered is no personal data, and says how its recording is to be asked for.
        facts = {name: fact for name, fact in call.facts.items() if name in self._keep or name == UNANSWERED}
        return CallFacts(call.session_id, call.kind, call.started_at, call.ended_at, call.user_id, facts)


def _new_session(bot: str, call: Call, priority: str) -> NewSession:
    return NewSession(bot, call.session_id, call.kind, priority, call.user_id, call.started_at, call.ended_at)
