"""Claiming: as many due sessions as there are free slots, again and again, until stopped or until a drain is done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from archiver.archive.context import BotAccess
from archiver.config import RetrySettings
from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.outcome import facts_of
from archiver.queue.sessions import Backlog, LeftPending, Queue
from archiver.worker.attempts import Attempts
from archiver.worker.lease import Lease
from archiver.worker.settling import Settling
from archiver.worker.store_gate import StoreGate

log = logger(__name__)

POLL_SECONDS = 1.0
"""How often the queue is looked at when nothing wakes the worker: polling is the truth, notifications only come earlier."""

COMPARE_SECONDS = 5.0
"""How often sessions in hand are compared with their rows, and how often a night still at work looks whether it is over."""


@dataclass(frozen=True)
class Drained:
    """How a run ended. `complete`: nothing failed meanwhile, and nothing had to be left."""

    failed: int = 0
    left_pending: list[LeftPending] = field(default_factory=list)
    store_unavailable: bool = False
    timed_out: int = 0
    """What falls due only after as long as a drain waits, or could not be done for the store."""
    next_due_in: timedelta | None = None
    """When the first of these falls due."""
    unsealed: bool = False
    """What happened could not be sealed, though there is a key."""

    @property
    def complete(self) -> bool:
        """Exit code 0 or 3."""
        return not (self.failed or self.left_pending or self.store_unavailable or self.timed_out or self.unsealed)


@dataclass(frozen=True)
class Terms:
    """When a run ends. A `drain` ends once nothing is left that could be done now or within `max_wait`, by default within the
    time after which a recording that is not ready is given up; not while `busy_elsewhere`, which may bring more.

    A drain makes rechecks of unavailable sessions beside other work only; that of a `night` makes all that were due when it
    began, and does not wait for sessions of low priority: a backfill may take weeks.
    """

    drain: bool = False
    max_wait: timedelta | None = None
    night: bool = False
    busy_elsewhere: Callable[[], bool] = lambda: False


GATHER_SECONDS = 0.005
"""So long the first of the slots that become free waits for others, while less than a quarter is free."""


class Claiming:
    """The claim loop. It never returns while a claim of its own is unanswered: such rows would be claimed by nobody."""

    def __init__(
        self,
        queue: Queue,
        bots: Mapping[str, BotAccess],
        attempts: Attempts,
        settling: Settling,
        gate: StoreGate,
        retry: RetrySettings,
        *,
        lease: Callable[[], Lease],
        wake: asyncio.Event,
        stopping: asyncio.Event,
        on_idle: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._bots = bots
        self._attempts = attempts
        self._settling = settling
        self._gate = gate
        self._retry = retry
        self._lease = lease
        self._wake = wake
        self._stopping = stopping
        self._on_idle = on_idle
        self._was_busy = False
        self._compare_at = time.monotonic() + COMPARE_SECONDS

    async def run(self, terms: Terms, started: datetime) -> Drained:
        """Claim until stopped, or until a drain is done. `started`: by the database's clock, failures count from there."""
        waited = 0.0  # for sessions that fall due later, with nothing else to do
        idle, looked_at = False, 0.0
        drain, night = terms.drain, terms.night
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                again_in = await self._claim(idle_rechecks=night or not drain, due_by=started if drain else None)
                still = not self._attempts and not self._settling and again_in > 0
                if still and self._was_busy:
                    self._on_idle()
                self._was_busy = not still
                now = time.monotonic()
                # A night may be over while others' work goes on here.
                if drain and not terms.busy_elsewhere() and (still or (night and now >= looked_at + COMPARE_SECONDS)):
                    backlog = await self._queue.backlog(list(self._bots), started, night=night)
                    waited += now - looked_at if idle else 0.0
                    drained = self._drained(backlog, terms.max_wait, waited)
                    if drained is not None:
                        return drained
                    idle, looked_at = not _due_now(backlog), now
                elif not night:
                    idle = False
            except DatabaseError as error:
                log.warning("database_unavailable", **facts_of(error))
                again_in, idle = POLL_SECONDS, False
            if again_in > 0:
                await self._wait_for_wake(again_in)
        return Drained()

    async def _claim(self, *, idle_rechecks: bool, due_by: datetime | None) -> float:
        """Claim for the free slots and start what was claimed. Returns seconds until it is worth coming again."""
        lease = self._lease()
        if lease.lost:
            return POLL_SECONDS
        if time.monotonic() >= self._compare_at:
            self._compare_at = time.monotonic() + COMPARE_SECONDS
            await self._compare_with_rows(lease)
        # A session leaves its slot before its outcome is written. While that takes long, no more of them gather than slots.
        running = len(self._attempts)
        concurrency = self._attempts.concurrency
        slots = min(concurrency - running, 2 * concurrency - running - len(self._settling))
        slow = self._attempts.slow_transfer()
        if slow is not None and self._attempts.any_waiting:
            self._attempts.make_room(slow)  # a session waits for a slot already
        elif slow is not None:
            slots = 1  # one more than there are: if work is due, and the budget allows it, this one yields to it
        if slots <= 0:
            return POLL_SECONDS
        if self._gate.closed:
            if self._attempts or not await self._gate.try_store():
                return POLL_SECONDS
            slots = 1
        # What is in hand goes first: where calls are few, each new session would take the one that another waits for.
        quotas = {name: bot.quota for name, bot in self._bots.items() if not bot.quota.waiting}
        retentions = {name: bot.settings.source_retention for name, bot in self._bots.items()}
        claim = await self._queue.claim(
            lease.worker_id, quotas, slots, idle_rechecks=idle_rechecks and slow is None, due_by=due_by, retentions=retentions
        )
        for session in claim.sessions:
            self._attempts.start(session, lease)
        if slow is not None:
            if claim.sessions:
                self._attempts.make_room(slow)
            return POLL_SECONDS
        wait = POLL_SECONDS if claim.again_in is None else min(claim.again_in.total_seconds(), POLL_SECONDS)
        return wait if len(claim.sessions) < slots else POLL_SECONDS

    async def _compare_with_rows(self, lease: Lease) -> None:
        """Put back rows that are ours and that nobody works on; stop working on rows that are no longer ours (cancelled)."""
        mine = self._attempts.of_worker(lease.worker_id)
        ours = [session.id for session in (*mine, *self._settling.sessions)]
        await self._queue.release_orphans(lease.worker_id, ours)
        self._attempts.stop_lost(await self._queue.find_lost_claims(mine))

    def _drained(self, backlog: Backlog, max_wait: timedelta | None, waited: float) -> Drained | None:
        if backlog.workable == backlog.claimed == backlog.rechecks == 0:
            return Drained(backlog.failed, backlog.left_pending)
        if self._gate.exhausted:
            return Drained(backlog.failed, backlog.left_pending, store_unavailable=True, timed_out=backlog.workable)
        if _due_now(backlog):
            # What is due now is done however long it takes: only the wait for what falls due later is bounded.
            return None
        assert backlog.due_in is not None
        give_up = self._retry.not_ready_give_up
        # By default as long as a recording that is not ready may take, to the ask that gives it up; what a producer put off for
        # longer makes no drain endless.
        most = give_up + max(self._retry.not_ready_delays) if max_wait is None else max_wait
        too_late = max_wait is None and backlog.due_in > give_up
        if too_late or waited + backlog.due_in.total_seconds() > most.total_seconds():
            return Drained(backlog.failed, backlog.left_pending, timed_out=backlog.workable, next_due_in=backlog.due_in)
        return None

    async def _wait_for_wake(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
        # Sessions of small recordings end one after another within milliseconds, and one claim for some of them costs the server
        # hardly more than one for each.
        if self._attempts and self._attempts.concurrency - len(self._attempts) < self._attempts.concurrency // 4:
            await asyncio.sleep(GATHER_SECONDS)


def _due_now(backlog: Backlog) -> bool:
    return bool(backlog.claimed or backlog.rechecks or backlog.due_in is None or backlog.due_in <= timedelta(0))
