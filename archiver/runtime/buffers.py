"""Memory for transfers, bounded for the whole process, whatever the concurrency."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Buffers:
    """At most `limit` bytes are reserved at a time, first come, first served. A holder can finish without reserving more, or
    gives back all before it waits for more, so there is no deadlock.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = limit
        self._urgent: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Those who have begun with less than they turned out to need: served before all others."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[Reservation]:
        """Reserve `size` bytes, once they are free; at most `limit`."""
        reservation = Reservation(self, await self._take(self.most(size)))
        try:
            yield reservation
        finally:
            reservation.shrink(0)

    def most(self, size: int) -> int:
        """What can be had of `size` bytes."""
        return min(size, self._limit)

    async def _take(self, size: int) -> int:
        return size if self.try_take(size) else await self._wait(self._waiting, size)

    async def exchange(self, held: int, size: int) -> int:
        """Give back `held` bytes for `size` others, once they are free; `held` are lost if it is cancelled."""
        return await self._wait(self._urgent, size, held)

    async def _wait(self, queue: deque[tuple[int, asyncio.Future[None]]], size: int, held: int = 0) -> int:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = (size, granted)
        queue.append(request)
        self.give(held)
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give(size)
            else:
                with suppress(ValueError):  # removed already, when others were cancelled in the same moment
                    queue.remove(request)
                self.give(0)
            raise
        return size

    def try_take(self, size: int) -> bool:
        """Take `size` bytes if they are free and nobody waits."""
        if self._urgent or self._waiting or size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Return `size` bytes, and grant what waits."""
        self._free += size
        while (queue := self._urgent or self._waiting) and queue[0][0] <= self._free:
            wanted, granted = queue.popleft()
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

    async def reach(self, size: int) -> None:
        """Hold at least `size` bytes, or all that can be had. Only for a holder that has nothing in what it holds yet: while it
        waits, which it does before all who hold nothing, it gives that back.
        """
        size = self._buffers.most(size)
        if size > self.size:
            held, self.size = self.size, 0
            self.size = await self._buffers.exchange(held, size)

    def grow(self, by: int) -> bool:
        """Reserve `by` more bytes if they are free now; a holder never waits for more. Whether it did."""
        if not self._buffers.try_take(by):
            return False
        self.size += by
        return True
