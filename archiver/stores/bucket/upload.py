"""One object on its way into a bucket, of whatever kind: a checked PUT if it is small, parts if it is not.

The bytes are held block by block, in memory that is reserved before the first one comes. A body that fits into one block is sent
whole by `save`, so that its hash can stand in the object's metadata, and the server is held to it. A longer one goes out block by
block as it comes; several at a time only while there is memory for them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial

from archiver.errors import StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.runtime.buffers import Reservation
from archiver.runtime.cancellation import settled, within
from archiver.stores import Saved
from archiver.stores.bucket.driver import Driver, Parts
from archiver.stores.bucket.exchange import Piece
from archiver.stores.bucket.objects import Objects
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body

log = logger(__name__)

MAX_PARTS = 10_000
DOUBLE_EVERY = 2_000
"""Parts double in size so often: with 8 MiB, ten thousand of them hold 484 GiB."""

INLINE_BYTES = 128 * 1024
"""So much is hashed on the event loop, in 80 µs: a hop to a thread and back takes as long, and the interpreter's lock besides."""

SMALL = 64 * 1024
"""Smaller pieces are gathered into blocks of this size, larger ones kept as they came."""

LEAVE_SECONDS = 10.0
"""What taking back an upload may take; what it did not achieve is tried again by the next `check`."""


class _Block:
    """Bytes gathered in memory, in pieces."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.pieces: list[Piece] = []
        self.length = 0

    def add(self, piece: Piece) -> None:
        """Take a piece that fits."""
        self.length += len(piece)
        last = self.pieces[-1] if self.pieces else None
        if len(piece) >= SMALL:
            self.pieces.append(piece)
        elif isinstance(last, bytearray) and len(last) < SMALL:
            last += piece
        else:
            self.pieces.append(bytearray(piece))


class Usual:
    """How long the recordings of a store are of late, the newest counting most. So much memory is kept for each before its length
    is known: were it a whole part, a few that wait for their media host would keep all others from asking theirs.
    """

    def __init__(self, part_size: int) -> None:
        self.bytes = self._part_size = part_size

    def count(self, length: int) -> None:
        """One is so long."""
        self.bytes += (min(max(length, SMALL), self._part_size) - self.bytes) // 8


class PartsUpload:
    """See `archiver.stores.Upload`. `movable`: it may be saved under another key, however long it is. `left_behind` is given what
    could not be taken back, and whether that was to be a temporary object.
    """

    def __init__(
        self,
        driver: Driver,
        objects: Objects,
        key: str,
        part_key: str,
        memory: Reservation,
        *,
        part_size: int,
        usual: Usual,
        parts_in_flight: int,
        movable: bool,
        left_behind: Callable[[Parts, bool], None],
    ) -> None:
        self._driver = driver
        self._objects = objects
        self._parts_in_flight = parts_in_flight
        self._left_behind = left_behind
        self._key = key
        self._part_key = part_key
        self._movable = movable
        self._memory = memory
        self._usual = usual
        self._least = self._wanted = part_size
        self._block = _Block(part_size)
        self._in_flight: dict[asyncio.Task[None], int] = {}
        self._number = 0
        self._sha256 = hashlib.sha256()
        self._parts: Parts | None = None
        self._copies: list[Parts] = []
        self._broken = False

    # --- taking bytes

    def expect(self, length: int) -> None:
        if self._number == self._block.length == 0:
            self._usual.count(length)
            self._wanted = min(max(length, SMALL), self._least)
            self._memory.shrink(self._wanted)

    async def write(self, data: bytes) -> None:
        self._whole()
        if self._wanted > self._memory.size and self._number == self._block.length == 0:
            await self._memory.reach(self._wanted)
        rest = memoryview(data)
        while len(rest) > (room := self._block.capacity - self._block.length):
            self._hold(self._block.capacity)
            self._block.add(rest[:room])
            rest = rest[room:]
            await self._send_block(more=True)
        self._hold(self._block.length + len(rest))
        self._block.add(data if len(rest) == len(data) else rest)

    def _whole(self) -> None:
        if self._broken:
            raise StoreUnavailable(f"{self._key}: a part of it could not be sent", store_key=self._key)

    def _hold(self, size: int) -> None:
        """More comes than was expected, and takes more memory than was kept for it."""
        if not self._parts and size > self._memory.size:
            self._broken = not self._memory.grow(self._least - self._memory.size)
            if self._broken:
                # To wait for memory while holding some could be for ever.
                raise StoreUnavailable(f"{self._key}: longer than expected, and no memory is free", store_key=self._key)

    async def _send_block(self, *, more: bool) -> None:
        """Send the block as the next part, and with `more` to come make room for another one."""
        done, self._broken = self._block, True  # until all of this went well
        with self._objects.translated(self._key):
            if self._parts is None:
                await self._begin()
            assert self._parts is not None
            self._number += 1
            if self._number > MAX_PARTS:
                raise StoreError(f"{self._key}: more than {MAX_PARTS} parts", store_key=self._key)
            send = partial(self._parts.send, self._number, await self._hashed(done))
            self._in_flight[asyncio.create_task(self._part(send))] = done.capacity
            self._block = _Block(0)
            if more:
                self._block = _Block(await self._room())
        self._broken = False

    async def _part(self, send: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await send()
        finally:
            self._in_flight[task] = 0
            self._memory.shrink(max(self._least, sum(self._in_flight.values()) + self._block.capacity))

    async def _room(self) -> int:
        """Bytes of memory for another block: further ones if they are free, else those of a part that has been sent."""
        wanted = self._least << (self._number // DOUBLE_EVERY)
        while True:
            self._collect()
            held = sum(self._in_flight.values())
            if len(self._in_flight) < self._parts_in_flight or not held:
                missing = wanted - (self._memory.size - held)
                if missing <= 0 or self._memory.grow(missing):
                    return wanted
                if not held:
                    return self._memory.size  # as large as it can be for now
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)

    def _collect(self) -> None:
        """Forget the parts that have been sent; raise what stopped one."""
        for task in [task for task in self._in_flight if task.done()]:
            del self._in_flight[task]
            task.result()

    async def _hashed(self, block: _Block) -> Body:
        """A block as a request's body, hashed in one hop to a thread: as the server is to prove it, and into the whole if that
        has other parts too.
        """
        digests = {self._driver.proof: hashlib.new(self._driver.proof, usedforsecurity=False)}
        whole = self._sha256
        if self._parts is None:
            whole = digests.setdefault("sha256", hashlib.sha256())
        into = {id(digest): digest for digest in (*digests.values(), whole)}.values()

        def into_each() -> Body:
            for piece in block.pieces:
                for digest in into:
                    digest.update(piece)
            return Body(block.pieces, block.length, **{name: digest.digest() for name, digest in digests.items()})

        return into_each() if block.length <= INLINE_BYTES else await asyncio.to_thread(into_each)

    async def _begin(self) -> None:
        # Parts cannot be given another key later, nor be read. Where that may be needed they go to the temporary one: when the
        # caller says so, and when the key is taken, by an equal object most likely, which ends in nothing, or else in quarantine.
        await self._driver.trial.result()
        at = self._part_key if self._movable or await self._objects.stored(self._key) else self._key
        self._parts = self._driver.parts(self._objects.prefix + at)
        await settled(self._parts.begin())

    # --- saving

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        self._objects.check_key(key)
        self._whole()
        with self._objects.translated(key):
            await self._driver.trial.result()
            if self._parts is None:
                return await settled(self._driver.put(key, await self._hashed(self._block), guard))
            if self._block.length:
                await self._send_block(more=False)
            while self._in_flight:
                self._broken = True
                self._collect()
                if self._in_flight:
                    await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            self._broken = False
            return await self._complete(self._parts, key, guard)

    async def _complete(self, parts: Parts, key: str, guard: Callable[[], None] | None) -> Saved:
        sha256, prefix = self._sha256.digest(), self._objects.prefix
        if parts.key == prefix + key:
            return await settled(parts.complete(key, sha256, guard))
        if parts.key != prefix + self._part_key:
            raise StoreError(
                f"{key}: what was sent in parts for {self._key} cannot be kept under another key",
                hint="fetch it again",
                store_key=key,
            )
        # It lies aside, or is about to.
        if await self._objects.stored(key):
            return await parts.compare(key, sha256)
        if not parts.completed:
            await settled(parts.complete(self._part_key, sha256, None))
        copy = await parts.copy(self._part_key, key, sha256, self._copies.append)
        return await settled(copy.complete(key, sha256, guard))

    # --- leaving

    @property
    def dropped(self) -> bool:
        """Whether there is nothing to take back: a task for it would cost a small recording's time."""
        return not (self._in_flight or self._copies or self._parts)

    async def drop(self) -> None:
        """Take back what is not saved; not to be cancelled. What fails of it is logged, and tried again by `check`."""
        interrupted = self._broken or bool(self._in_flight)
        for task in self._in_flight:
            task.cancel()
        if self._in_flight:
            await asyncio.wait(self._in_flight)
            for task in self._in_flight:
                task.cancelled() or task.exception()  # what stopped the upload was raised already
        self._in_flight.clear()
        for parts in [*self._copies, *([self._parts] if self._parts else [])]:
            aside = parts.key == self._objects.prefix + self._part_key
            try:
                await within(LEAVE_SECONDS, parts.take_back(aside=aside, interrupted=interrupted))
            except (Refused, StoreError, TimeoutError) as error:
                self._left_behind(parts, aside)
                log.warning(
                    "upload_left_behind", store_key=self._key, error=getattr(error, "code", "timeout"), message=str(error)
                )
