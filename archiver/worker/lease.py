"""A worker's lease: its right to the sessions it has claimed, and how that right is kept and lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from archiver.errors import DatabaseError, LeaseLost
from archiver.observe.logs import logger
from archiver.runtime.cancellation import within

log = logger(__name__)

MARGIN = 0.9
"""The part of its lease that a worker uses: it stops before others may act on the rest."""


def boottime() -> float:
    """A clock that nobody sets, and that goes on while the machine sleeps: the lease does run out meanwhile."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """Good from `asked_at` (`boottime`, before the database was asked) for nine tenths of `length`, and as long as it is
    renewed. Once lost it stays lost, whatever answer still comes in: its sessions may be with others.
    """

    def __init__(self, worker_id: int, length: timedelta, asked_at: float) -> None:
        self.worker_id = worker_id
        self._length = length
        self._until = asked_at + length.total_seconds() * MARGIN
        self._lost = False
        self._tried = False

    @property
    def stalled(self) -> bool:
        """Of one that is lost: the event loop did not come to renewing it. Its process was not let run, or something that it
        worked on kept it from going on, and may be to blame, as for a crash.
        """
        return self.lost and not self._tried

    @property
    def lost(self) -> bool:
        """Whether this worker may act no more."""
        self._lost = self._lost or boottime() >= self._until
        return self._lost

    @property
    def remaining(self) -> float:
        """Seconds that this worker may still act."""
        return 0.0 if self.lost else self._until - boottime()

    def give_up(self) -> None:
        """Lose it now."""
        self._lost = True

    def renewed(self, asked_at: float) -> None:
        """The database prolonged it, when asked at that time."""
        if not self.lost:
            self._until = asked_at + self._length.total_seconds() * MARGIN
            self._tried = False

    def guard(self) -> None:
        """Raises LeaseLost if another worker may own the sessions now."""
        if self.lost:
            raise LeaseLost(f"the lease of worker {self.worker_id} ran out")

    async def keep(self, renew: Callable[[int, timedelta], Coroutine[Any, Any, bool]]) -> None:
        """Renew at a third of the length, after a failure sooner, until it is lost. On the loop: one that hangs must lose it."""
        third = self._length.total_seconds() / 3
        pause = third
        while True:
            await asyncio.sleep(min(pause, self.remaining))
            if self.lost:
                return
            asked_at, self._tried = boottime(), True
            try:
                if not await within(self.remaining, renew(self.worker_id, self._length)):
                    self.give_up()
                self.renewed(asked_at)
                pause = third
            except (DatabaseError, TimeoutError) as error:
                log.warning("lease_renewal_failed", remaining_seconds=round(self.remaining, 1), error=str(error))
                pause = min(1.0, third / 3)
