"""The slots of a worker: so many sessions at once. Their number may change while they are in use."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from types import TracebackType
from typing import Self


class Slots:
    """As an `asyncio.Semaphore`, first come, first served. With fewer slots than are in use nobody loses one: none is given away
    until enough are free.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.in_use = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiters)

    def resize(self, size: int) -> None:
        """So many from now on."""
        self.size = size
        self._give()

    async def __aenter__(self) -> Self:
        if self.in_use < self.size and not self._waiters:
            self.in_use += 1
            return self
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._leave()  # it was given a slot in the same moment
            else:
                with suppress(ValueError):
                    self._waiters.remove(waiter)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self.in_use -= 1
        self._give()

    def _give(self) -> None:
        while self._waiters and self.in_use < self.size:
            waiter = self._waiters.popleft()
            if not waiter.done():  # else it was cancelled
                self.in_use += 1
                waiter.set_result(None)
