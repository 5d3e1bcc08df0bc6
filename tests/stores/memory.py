"""A store in memory: the shortest that keeps what `archiver.stores` promises, to tell the suite's own mistakes from a store's."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from archiver.errors import KeyConflict, StoreError
from archiver.runtime.buffers import Buffers
from archiver.stores import Advice, AtOnce, Digest, Listed, Pay, Saved, check_key, check_part
from archiver.stores.digesting import digest_of


class _MemoryUpload:
    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store = store
        self._key = key
        self._data = bytearray()

    def expect(self, length: int) -> None:
        pass

    async def write(self, data: bytes) -> None:
        self._data += data
        await asyncio.sleep(0)  # a moment in which it can be cancelled, as there is in every store

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        check_key(key)
        data = bytes(self._data)
        await asyncio.sleep(0)
        if guard is not None:
            guard()
        stored = self._store.objects.setdefault(key, data)
        await asyncio.sleep(0)
        ours, theirs = (hashlib.sha256(content).hexdigest() for content in (data, stored))
        if ours != theirs:
            raise KeyConflict(key, stored_sha256=theirs, stored_bytes=len(stored), sha256=ours, size=len(data))
        return Saved(key, len(stored), theirs, existed=stored is not data)


class MemoryStore:
    """See the module. What it keeps, it keeps twice: it is for small files."""

    def __init__(self, buffers: Buffers) -> None:
        self.objects: dict[str, bytes] = {}
        self._buffers = buffers

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[_MemoryUpload]:
        check_key(key)
        check_part(key, part)
        async with self._buffers.reserve(1024 * 1024):
            yield _MemoryUpload(self, key)

    def sharing(self, buffers: Buffers) -> MemoryStore:
        shared = copy.copy(self)
        shared._buffers = buffers
        return shared

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        check_key(key)
        if key not in self.objects:
            raise StoreError(f"{key} is missing", store_key=key, missing=True)
        yield self.objects[key]

    async def digests(self, objects: Sequence[tuple[str, int]], pay: Pay | None = None) -> list[Digest | StoreError]:
        return [await digest_of(self.read(key), expected, pay) for key, expected in objects]

    def at_once(self) -> AtOnce:
        return AtOnce(calls=2, small=2)

    async def size(self, key: str) -> int | None:
        check_key(key)
        found = self.objects.get(key)
        return None if found is None else len(found)

    async def list(self, prefix: str = "", *, versions: bool = False) -> AsyncGenerator[Listed, None]:
        for key in sorted(self.objects, key=str.encode):
            if key.startswith(prefix):
                yield Listed(key, len(self.objects[key]), datetime.now(UTC))

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        check_key(key)
        check_part(key, part)
        return self.objects.pop("/".join((*key.split("/")[:-1], part)), None) is not None

    async def check(self) -> str:
        return "in memory"

    async def free(self) -> None:
        return None

    async def longest_name(self) -> None:
        return None

    async def empty(self) -> bool:
        return all(key.startswith(".") for key in self.objects)

    async def advice(self) -> Sequence[Advice]:
        return [Advice("it is forgotten with the process", "for tests only")]
