"""Closing a time: the account of all bots' calls, whether it is complete, and what earlier ones left open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from archiver import __version__
from archiver.account.counts import COUNTS, count_open
from archiver.account.discovery import Listings
from archiver.account.reading import OnRefused, each_bot
from archiver.account.reconcile import Account, reconcile
from archiver.config import BotSettings
from archiver.kore.listings.calls import Span
from archiver.postgres.database import Database
from archiver.queue.accounts import AccountDay, Accounts, NewAccount, OpenSession
from archiver.queue.findings import DamagedSessions
from archiver.queue.ledger import Standing
from archiver.queue.reports import Reports
from archiver.runtime.days import day_of, first_moment
from archiver.stores import Store

DAY = timedelta(days=1)

MAX_OPEN = 1000
"""Sessions of earlier accounts that are named; all are counted."""


@dataclass(frozen=True)
class Earlier:
    """Sessions that are not in the account and that somebody has to see to, of the same bots: of other times, or not listed."""

    failed: int
    mismatched: int
    sessions: Sequence[OpenSession]

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        sessions = [
            {"bot": each.bot, "session_id": each.session_id, "kind": each.kind, "state": each.state, "reason": each.reason,
             "called_at": each.called_at.isoformat()}
            for each in self.sessions
        ]  # fmt: skip
        return {"failed": self.failed, "mismatched": self.mismatched, "sessions": sessions}


@dataclass(frozen=True)
class Closing:
    """An account, of which times of which bots it is, which bots the platform gave no answer for, and who made it when.
    `earlier`: None where it was not asked for.
    """

    account: Account
    spans: Mapping[str, Span]
    bots: Sequence[BotSettings]
    failed: Mapping[str, str]
    command: str
    made_at: datetime
    made_by: str
    earlier: Earlier | None = None
    evidence: Standing | None = None
    """How far what happened was sealed then."""
    damaged: DamagedSessions | None = None
    """What verify found wrong, of any time; None where it was not asked for. It makes no account incomplete."""

    @property
    def complete(self) -> bool:
        """Whether every call of these times is accounted for."""
        return self.account.complete and not self.failed

    @property
    def nothing_open(self) -> bool:
        """Exit code 0 or 3: it is complete, and earlier times left nothing open."""
        return self.complete and not (self.earlier and (self.earlier.failed or self.earlier.mismatched))

    def days(self) -> Iterator[AccountDay]:
        """Each day of each bot, also those without a call."""
        for bot in sorted(self.bots, key=lambda bot: bot.name):
            span = self.spans[bot.name]
            gaps = [problem for problem in self.account.problems if problem["bot"] == bot.name and problem["gap"]]
            day, last = day_of(span.start, bot.zone), day_of(span.end - timedelta(microseconds=1), bot.zone)
            while day <= last:
                yield self._day(bot, day, span, gaps)
                day += DAY

    def _day(self, bot: BotSettings, day: date, span: Span, gaps: Sequence[Mapping[str, Any]]) -> AccountDay:
        start, end = first_moment(day, bot.zone), first_moment(day + DAY, bot.zone)
        counts = self.account.days.get((bot.name, day), Counter())
        whole = span.start <= start and end <= span.end and bot.name not in self.failed
        seen = not any(_overlaps(gap, start, end) for gap in gaps)
        part = Span(max(start, span.start), min(end, span.end))
        return AccountDay(
            bot.name, day, bot.time_zone, part.start, part.end, whole, whole and seen and not count_open(counts),
            count_open(counts), {name: counts[name] for name in COUNTS},
        )  # fmt: skip

    def as_document(self) -> dict[str, Any]:
        """JSON, but for the items, of which there may be many: those stay out of their list."""
        account, spans = self.account, self.spans
        zones = {bot.name: bot.time_zone for bot in self.bots}
        return {
            "made_at": self.made_at.isoformat(),
            "made_by": self.made_by,
            "command": self.command,
            "version": __version__,
            "from": min(span.start for span in spans.values()).isoformat(),
            "to": max(span.end for span in spans.values()).isoformat(),
            **{name: account.counts[name] for name in COUNTS},
            "developer_calls": account.developer_calls,
            "complete": self.complete,
            "bots": [
                {"bot": bot, "from": span.start.isoformat(), "to": span.end.isoformat(), "time_zone": zones[bot]}
                for bot, span in spans.items()
            ],
            "days": [
                {"bot": day.bot, "day": day.day.isoformat(), **day.counts, "whole": day.whole, "complete": day.complete}
                for day in self.days()
                if any(day.counts.values())
            ],
            "items": [],
            "earlier": None if self.earlier is None else self.earlier.as_document(),
            "damaged": None if self.damaged is None else self.damaged.as_document(),
            "evidence": None if self.evidence is None else self.evidence.as_document(),
            "problems": account.problems,
            "failed_bots": dict(self.failed),
        }

    async def keep(self, database: Database) -> None:
        """Keep it in the database. Raises DatabaseError."""
        spans = self.spans.values()
        kept = NewAccount(
            self.command,
            __version__,
            min(span.start for span in spans),
            max(span.end for span in spans),
            self.complete,
            {name: self.account.counts[name] for name in COUNTS},
            self.account.problems,
            self.failed,
            list(self.days()),
        )
        await Accounts(database).keep(kept, actor=self.made_by)


def _overlaps(problem: Mapping[str, Any], start: datetime, end: datetime) -> bool:
    return datetime.fromisoformat(problem["from"]) < end and datetime.fromisoformat(problem["to"]) > start


async def close_account(
    listings: Mapping[str, Listings],
    database: Database,
    store: Store,
    bots: Sequence[BotSettings],
    spans: Mapping[str, Span],
    *,
    all_bots: Sequence[BotSettings],
    command: str,
    actor: str,
    on_refused: OnRefused,
    on_calls: Callable[[int], None] = lambda _calls: None,
) -> Closing:
    """Account for the calls of each of `bots`, of its span. `spans` may have more of them, `all_bots`. Changes no session.
    `on_calls` is told after each stretch how many calls are accounted for.

    Raises DatabaseError, StoreError.
    """
    accounts = {bot.name: Account() for bot in bots}

    def told() -> None:
        on_calls(sum(account.counts["calls"] for account in accounts.values()))

    async def one(bot: BotSettings) -> None:
        stretches = listings[bot.name].stretches(spans[bot.name], facts=False)
        await reconcile(bot, stretches, database, store, accounts[bot.name], actor=actor, on_stretch=told)

    _, failed = await each_bot(bots, one, on_refused=on_refused)
    whole = Account()
    for _, account in sorted(accounts.items()):
        whole.add(account)  # of one that was broken off, too: it says how far it came
    now = await Reports(database).now()
    return Closing(whole, spans, [bot for bot in all_bots if bot.name in spans], failed, command, now, actor)


async def find_earlier(database: Database, account: Account, bots: Sequence[str]) -> Earlier:
    """What these bots have open besides what the account names. Raises DatabaseError."""
    accounts = Accounts(database)
    without = [(item.bot, item.session_id, item.kind) for item in account.items if not item.settled]
    counts = await accounts.count_open(bots, without=without)
    sessions = await accounts.list_open(bots, without=without, max_rows=MAX_OPEN)
    return Earlier(counts.failed, counts.mismatched, sessions)
