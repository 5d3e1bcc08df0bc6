"""Settling in batches: outcomes that come within a moment of each other are written by one statement and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from archiver.errors import DatabaseUnreachable, LeaseLost
from archiver.outcome import Outcome
from archiver.queue.sessions import Queue
from archiver.session import Attempt, State

DELAY_SECONDS = 0.05
"""No outcome waits longer than this for others to join it."""

BATCH = 200
"""So many are written at once, at most."""


@dataclass
class _Ended:
    attempt: Attempt
    outcome: Outcome
    written: asyncio.Future[State] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, state: State | None) -> None:
        session = self.attempt.session
        if state is None:
            self.fail(LeaseLost(f"session {session.session_id} of {session.bot} is no longer epoch {session.epoch}'s"))
        elif not self.written.done():
            self.written.set_result(state)

    def fail(self, error: Exception) -> None:
        if not self.written.done():  # else whoever waited was cancelled
            self.written.set_exception(error)


class Settling:
    """Gathers outcomes and writes them. Nothing is lost with it: what was not written when the process dies is still claimed,
    so it is done again by others, and compared with what is stored.
    """

    def __init__(self, queue: Queue, *, more: Callable[[], bool]) -> None:
        """`more`: whether others may come while an outcome waits."""
        self._queue = queue
        self._more = more
        self._waiting: list[_Ended] = []
        self._timer: asyncio.TimerHandle | None = None
        self._writes: set[asyncio.Task[None]] = set()

    async def settle(self, attempt: Attempt, outcome: Outcome) -> State:
        """Returns the session's state when it is written. Raises LeaseLost where it was no longer this claim's, DatabaseError
        where it may be tried again.
        """
        ended = _Ended(attempt, outcome)
        self._waiting.append(ended)
        if len(self._waiting) >= BATCH or not self._more():
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_SECONDS, self.flush)
        return await ended.written

    def flush(self) -> None:
        """Write what waits, without waiting for more to join."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            write = asyncio.create_task(self._write(batch), name=f"settle {len(batch)}")
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)

    async def _write(self, batch: list[_Ended]) -> None:
        try:
            states = await self._queue.settle([(ended.attempt, ended.outcome) for ended in batch])
        except Exception as error:  # noqa: BLE001  # it goes to those who wait for it
            if len(batch) > 1 and not isinstance(error, DatabaseUnreachable):
                # One of them cannot be written: that is not the others' doing.
                for ended in batch:
                    await self._write([ended])
            else:
                for ended in batch:
                    ended.fail(error)
            return
        for ended, state in zip(batch, states, strict=True):
            ended.end(state)
