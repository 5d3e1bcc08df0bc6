"""One object on its way into a bucket: a checked PUT if it is small, parts if it is not.

The bytes are held block by block, in memory that is reserved before the first one comes. A body that fits into one block is sent
whole by `save`, so that its hash can stand in the object's metadata, and the server is held to it. A longer one goes out block by
block as it comes; several at a time only while there is memory for them at once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from archiver.buffers import Reservation
from archiver.cancellation import to_its_end, within
from archiver.errors import StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.stores import Saved
from archiver.stores.s3_parts import DOUBLE_EVERY, MOST_PARTS, Multipart, composite
from archiver.stores.s3_refusals import Refused, translated
from archiver.stores.s3_wire import Body, Piece

if TYPE_CHECKING:
    from archiver.stores.s3 import S3Store

log = logger(__name__)

INLINE_BYTES = 64 * 1024
"""So much is hashed on the event loop: a hop to a thread takes as long."""

SMALL = 64 * 1024
"""Smaller pieces are gathered into blocks of this size, larger ones kept as they came."""

LEAVE_SECONDS = 10.0
"""What taking back an upload may take; what it did not achieve is tried again by the next `check`."""

SETTLE_SECONDS = 5.0
"""How long a request that decides over the object is still awaited after a cancellation, to know how it ended."""

T = TypeVar("T")


async def settled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, a cancellation notwithstanding, but then no longer than SETTLE_SECONDS."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()

    def hurry() -> None:
        loop.call_later(SETTLE_SECONDS, task.cancel)

    return await to_its_end(task, on_cancel=hurry)


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


class S3Upload:
    """See `archiver.stores.Upload`. `movable`: it may be saved under another key, however long it is."""

    def __init__(self, store: S3Store, key: str, part_key: str, memory: Reservation, *, movable: bool) -> None:
        self._store = store
        self._key = key
        self._part_key = part_key
        self._movable = movable
        self._memory = memory
        self._least = memory.size
        self._block = _Block(memory.size)
        self._in_flight: dict[asyncio.Task[None], int] = {}
        self._number = 0
        self._sha256 = hashlib.sha256()
        self._multipart: Multipart | None = None
        self._copies: list[Multipart] = []
        self._broken = False

    # --- taking bytes

    def expect(self, length: int) -> None:
        if self._number == self._block.length == 0:
            self._memory.shrink(max(length, SMALL))

    async def write(self, data: bytes) -> None:
        self._whole()
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
        if not self._multipart and size > self._memory.size:
            self._broken = not self._memory.grow(self._least - self._memory.size)
            if self._broken:
                # To wait for memory while holding some could be for ever.
                raise StoreUnavailable(f"{self._key}: longer than expected, and no memory is free", store_key=self._key)

    async def _send_block(self, *, more: bool) -> None:
        """Send the block as the next part, and with `more` to come make room for another one."""
        done, self._broken = self._block, True  # until all of this went well
        with translated(self._key):
            if self._multipart is None:
                await self._begin()
            assert self._multipart is not None
            self._number += 1
            if self._number > MOST_PARTS:
                raise StoreError(f"{self._key}: more than {MOST_PARTS} parts", store_key=self._key)
            digest = await self._hash(done)
            send = partial(self._store.send_part, self._multipart, self._number, Body(done.pieces, done.length, digest))
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
            if len(self._in_flight) < self._store.parts_in_flight or not held:
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

    async def _hash(self, block: _Block) -> bytes:
        """Hash a block by itself, and into the whole if that has other parts too, in one hop to a thread."""
        digests = [hashlib.sha256()]
        if self._multipart is not None:
            digests.append(self._sha256)

        def into_each() -> bytes:
            for piece in block.pieces:
                for digest in digests:
                    digest.update(piece)
            return digests[0].digest()

        return into_each() if block.length <= INLINE_BYTES else await asyncio.to_thread(into_each)

    async def _begin(self) -> None:
        # Parts cannot be given another key later, nor be read. Where that may be needed they go to the temporary one: when the
        # caller says so, and when the key is taken, by an equal object most likely, which ends in nothing, or else in quarantine.
        tried = await self._store.tried()
        at = self._part_key if self._movable or await self._store.stored(self._key) else self._key
        self._multipart = Multipart(self._store.wire, self._store.prefix + at)
        await settled(self._multipart.begin(self._store.description(), checksums=tried.verifies))

    # --- saving

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        self._store.check_key(key)
        self._whole()
        with translated(key):
            await self._store.tried()
            if self._multipart is None:
                digest = await self._hash(self._block)
                return await settled(self._store.put(key, Body(self._block.pieces, self._block.length, digest), guard))
            if self._block.length:
                await self._send_block(more=False)
            while self._in_flight:
                self._broken = True
                self._collect()
                if self._in_flight:
                    await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            self._broken = False
            return await self._complete(self._multipart, key, guard)

    async def _complete(self, multipart: Multipart, key: str, guard: Callable[[], None] | None) -> Saved:
        sha256 = self._sha256.digest()
        store = self._store
        if multipart.key == store.prefix + key:
            return await settled(store.complete(multipart, key, sha256, guard))
        if multipart.key != store.prefix + self._part_key:
            raise StoreError(
                f"{key}: what was sent in parts for {self._key} cannot be kept under another key",
                hint="fetch it again",
                store_key=key,
            )
        # It lies aside, or is about to.
        if await store.stored(key):
            return await store.compare(key, multipart.length, sha256, composite(multipart.parts))
        if not multipart.completed:
            await settled(store.complete(multipart, self._part_key, sha256, None))
        return await settled(store.complete(await self._copy_of(multipart, key, sha256), key, sha256, guard))

    async def _copy_of(self, multipart: Multipart, key: str, sha256: bytes) -> Multipart:
        """A copy of what lies aside, in parts as well, to be completed. Some servers compute no checksums of what they copy: then
        it is begun without them, and read back in the end.
        """
        store = self._store
        for checksums in (True, False) if (await store.tried()).verifies else (False,):
            copy = Multipart(store.wire, store.prefix + key)
            self._copies.append(copy)
            await settled(copy.begin(store.description(sha256), checksums=checksums))
            await copy.copy(multipart, store.copy_source(self._part_key))
            if all(part.confirmed for part in copy.parts):
                break
        return self._copies[-1]

    # --- leaving

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
        for multipart in [*self._copies, *([self._multipart] if self._multipart else [])]:
            aside = multipart.key == self._store.prefix + self._part_key
            try:
                await within(LEAVE_SECONDS, self._store.take_back(multipart, aside=aside, interrupted=interrupted))
            except (Refused, StoreError, TimeoutError) as error:
                self._store.left_behind(multipart, aside=aside)
                log.warning("upload_left_behind", store_key=self._key, error=getattr(error, "code", "timeout"), told=str(error))
