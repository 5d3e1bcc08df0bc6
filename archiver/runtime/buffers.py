"""Memory for transfers, bounded for the whole process, whatever the concurrency."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Buffers:
    """At most `limit` bytes are reserved at a time, first come, first served. A holder can finish without reserving more,
    so there is no deadlock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Reservation]:
        """Reserve `size` bytes, once they are free; at most `limit`."""
        reservation = Reservation(self, await self._take(min(size, self._limit)))
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    async def _take(self, size: int) -> int:
        if self.try_take(size):
            return size
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = (size, granted)
        self._waiting.append(request)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(size)
            else:
                with suppress(ValueError):  # removed already, when others were cancelled in the same moment
                    self._waiting.remove(request)
                self.give(0)
            raise
        return size

    def try_take(self, size: int) -> bool:
        """Take `size` bytes if they are free and nobody waits."""
        if self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Return `size` bytes, and grant what waits."""
        self._free += size
        while self._waiting and self._waiting[0][0] <= self._free:
            wanted, granted = self._waiting.popleft()
            if not granted.done():
                self._free -= wanted
                granted.set_result(None)


class Reservation:
    """Bytes reserved by one upload."""

    def __init__(self, buffers: Buffers, size: int) -> None:
        self._buffers = buffers
        self.size = size

    def shrink(self, size: int) -> None:
        """Give back all but `size` bytes."""
        if size < self.size:
            spare, self.size = self.size - size, size
            self._buffers.give(spare)

    def grow(self, by: int) -> bool:
        """Reserve `by` more bytes if they are free now; a holder never waits for more. Whether it did."""
        if not self._buffers.try_take(by):
            return False
        self.size += by
        return True
