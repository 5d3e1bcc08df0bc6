"""The request budget of an account or a bot, shared by the whole fleet. The arithmetic is `archive_draw` in the migrations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from archiver.config import RateLimit
from archiver.errors import BudgetSpent
from archiver.postgres.database import Database
from archiver.queue.sql import sql

MINUTE = timedelta(minutes=1)

NO_LIMIT = 2**31 - 1

MIN_PATIENCE = timedelta(seconds=30)
"""Longer than this nobody waits for a call while holding a session: it goes back to the queue instead. Unless that is less than
the budget's own pace: of a call a minute the second one of a session would never come, and who needs two would begin for ever.
"""

MAX_PATIENCE = timedelta(minutes=15)
"""That pace at most."""

LONG_WAIT = timedelta(seconds=5)
"""Who waits longer than that for a call goes before new sessions."""

MAX_RETRY_AFTER = timedelta(minutes=2)
"""A longer Retry-After is probed: it may be meant for the one session that drew it, and would cost all the others a night."""

MIN_PROBE_PAUSE, MAX_PROBE_PAUSE = timedelta(seconds=10), timedelta(minutes=15)
"""Before the first probe, and the most that doubling makes of it."""

PROBE_TURN = timedelta(seconds=15)
"""So long a worker may take the turn to probe; then the budget opens by itself, since nobody is there who would."""


class Quota:
    """Draws calls from one budget. A claim draws its own in the same statement; this is for every further call."""

    def __init__(
        self, database: Database, key: str, rate_limits: Sequence[RateLimit], *, backoff_base: timedelta, counted: bool = False
    ) -> None:
        """`key` is what the platform counts by; `rate_limits` come shortest window first. `counted`: a single one, too."""
        self._database = database
        self._backoff_base = backoff_base
        self.key = key
        self.limit(rate_limits, counted=counted)
        self.waiting = 0
        """How many wait long for a call."""
        self._blocked_until: float | None = None  # by this process's clock; None: not refused since the last answer

    def limit(self, rate_limits: Sequence[RateLimit], *, counted: bool = False) -> None:
        """These limits from the next call on, whoever waits for one already."""
        self._rate_limits = rate_limits
        # Calls are counted where there is a second window: here one that never binds.
        second = [RateLimit(MINUTE, NO_LIMIT)] if counted and len(rate_limits) == 1 else []
        self.windows = [limit.window for limit in (*rate_limits, *second)]
        self.limits = [limit.calls for limit in (*rate_limits, *second)]
        pace = max((limit.window / max(limit.calls - 1, 1) for limit in rate_limits[:1]), default=timedelta(0))
        self.patience = max(MIN_PATIENCE, min(pace * 1.5, MAX_PATIENCE))

    def seconds_for(self, calls: float) -> float:
        """What so many calls take in the long run, if nobody else draws."""
        return max((calls * limit.window.total_seconds() / limit.calls for limit in self._rate_limits), default=0.0)

    async def draw(self, patience: timedelta | None = None) -> None:
        """Return when one more call may go out. Raises BudgetSpent instead of waiting longer than `patience`, by default the
        budget's own.
        """
        deadline = time.monotonic() + (self.patience if patience is None else patience).total_seconds()
        long = False
        try:
            while True:
                row = await self._database.row(sql("budget/draw"), budget=self.key, windows=self.windows, limits=self.limits)
                assert row is not None
                if row["granted"]:
                    return
                wait: timedelta = row["wait"]
                if time.monotonic() + wait.total_seconds() > deadline:
                    raise BudgetSpent(wait)
                if wait > LONG_WAIT and not long:
                    long = True
                    self.waiting += 1
                # No longer than that: a probe may open the budget meanwhile.
                await asyncio.sleep(min(max(wait.total_seconds(), 0.01), max(LONG_WAIT.total_seconds(), 0.1)))
        finally:
            self.waiting -= long

    async def block(self, retry_after: timedelta | None) -> timedelta:
        """The platform refused a call: nobody draws from this budget before it may go on. Returns for how long. A wait that is
        longer than MAX_RETRY_AFTER is probed instead; see `take_probe`.

        A Retry-After of nothing, or of the past, is none: to ask again at once would be refused again, at once.
        """
        if retry_after is not None and retry_after <= timedelta(0):
            retry_after = None
        row = await self._database.row(
            sql("budget/block"),
            budget=self.key,
            retry_after=retry_after,
            backoff_base=self._backoff_base,
            max_retry_after=MAX_RETRY_AFTER,
            min_pause=MIN_PROBE_PAUSE,
            max_pause=MAX_PROBE_PAUSE,
            turn=PROBE_TURN,
        )
        assert row is not None
        wait: timedelta = max(row["wait"], timedelta(0))
        self._blocked_until = time.monotonic() + wait.total_seconds()
        return wait

    async def take_probe(self) -> bool:
        """Whether it is for this worker to try a budget that is blocked for long. One call of it is drawn then, past the block;
        the next turn, whoever takes it, comes after twice the pause.
        """
        async with self._database.transaction() as run:
            if not await run(sql("budget/take_probe"), budget=self.key, turn=PROBE_TURN):
                return False
            (drawn,) = await run(sql("budget/draw"), budget=self.key, windows=self.windows, limits=self.limits)
            granted = bool(drawn["granted"])
            await run(
                sql("budget/schedule_probe"),
                budget=self.key,
                granted=granted,
                wait=drawn["wait"],
                turn=PROBE_TURN,
                min_pause=MIN_PROBE_PAUSE,
                max_pause=MAX_PROBE_PAUSE,
            )
        return granted

    async def probed(self, wait: timedelta = timedelta(0)) -> None:
        """A probe was let through, or told to wait: the block lasts no longer than that."""
        await self._database.rows(
            sql("budget/end_probe"), budget=self.key, wait=wait, max_retry_after=MAX_RETRY_AFTER, turn=PROBE_TURN
        )

    async def answered(self) -> None:
        """The platform answered, and not while it was refusing others: the next refusal doubles from the start."""
        if self._blocked_until is not None and time.monotonic() >= self._blocked_until:
            await self._database.row(sql("budget/reset_strikes"), budget=self.key)
            self._blocked_until = None
