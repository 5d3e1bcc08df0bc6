"""The objects in a bucket, as far as all kinds of buckets are alike: keys, reading, comparing, removing."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager

import aiohttp

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.runtime.retry import TRIES
from archiver.stores import MAX_COMPARED, Saved, check_key, check_part
from archiver.stores.bucket.refusals import Hints, Refused, translated
from archiver.stores.bucket.wire import READ_BUFFER, Wire, object_reader

MAX_KEY = 1024
"""Bytes of UTF-8, the prefix included."""

_DELETED_BY_OTHERS = "find out who else deletes objects in this bucket; the recording will be fetched again"
_WRITTEN_BY_OTHERS = "find out who else writes objects in this bucket"

Vouched = Callable[[Mapping[str, str]], Awaitable[bytes]]
"""Given the headers of an object: its SHA-256, as far as the server itself vouches for it; empty where it does not."""


class Objects:
    """Those of one store, which lie under its prefix. Keys are the store's, but where it says otherwise."""

    def __init__(self, wire: Wire, prefix: str, hints: Hints) -> None:
        self.prefix = prefix
        self.wire = wire
        self._hints = hints

    def check_key(self, key: str) -> None:
        """Raises StoreError for a key that could leave the prefix, or that the server does not take."""
        check_key(key)
        if len((self.prefix + key).encode()) > MAX_KEY:
            raise StoreError(f"{key} cannot be kept: longer than {MAX_KEY} bytes", hint="shorten storage.path", store_key=key)
        if why := self.wire.refuses_key(self.prefix + key):
            raise StoreError(f"{key} cannot be kept: {why}", store_key=key)

    def part_key(self, key: str, part: str) -> str:
        """The key of a temporary object. Raises StoreError."""
        self.check_key(key)
        check_part(key, part)
        return "/".join((*key.split("/")[:-1], part))

    def translated(self, key: str) -> AbstractContextManager[None]:
        """Turns refusals into errors of ours, about this key."""
        return translated(key, self._hints)

    async def head(self, key: str) -> Mapping[str, str] | None:
        """The headers of an object, without its bytes; None if there is none. Raises Refused."""
        return await self.wire.head(self.prefix + key)

    async def stored(self, key: str) -> bool:
        """Whether something lies under a key. Raises Refused."""
        return await self.head(key) is not None

    async def compare(self, key: str, length: int, sha256: bytes, vouched: Vouched | None = None) -> Saved:
        """Hold what lies under a key against what should: by reading it, as its metadata may say anything, unless the server
        itself has `vouched` for its hash. Raises Refused, KeyConflict.
        """
        head = await self.head(key)
        if head is None:
            raise StoreUnavailable(
                f"{key} was there a moment ago and is gone",
                hint=_DELETED_BY_OTHERS,
                store_key=key,
            )
        size = length_of(head)
        stored = await vouched(head) if vouched is not None else b""
        if not stored and size <= (limit := max(length, MAX_COMPARED)):
            stored = await self._hash_of(key, limit)
        if stored != sha256:
            hashed = stored.hex() or None
            raise KeyConflict(key, stored_sha256=hashed, stored_bytes=size, sha256=sha256.hex(), size=length)
        return Saved(key, size, stored.hex(), existed=True)

    async def read_back(self, key: str, length: int, sha256: bytes) -> None:
        """Make sure that the server has what was sent to it. Raises StoreUnavailable if not."""
        if await self._hash_of(key, length) != sha256:
            raise StoreUnavailable(
                f"{key}: what the server has is not what was sent", hint="do not use this server", store_key=key
            )

    async def _hash_of(self, key: str, limit: int) -> bytes:
        """The SHA-256 of an object; empty for one of more than `limit` bytes, which is not read on."""
        digest = hashlib.sha256()
        async with aclosing(self.read(key)) as blocks:
            async for block in blocks:
                limit -= len(block)
                if limit < 0:
                    return b""
                digest.update(block)
        return digest.digest()

    async def size(self, key: str) -> int | None:
        """As `Store.size`."""
        self.check_key(key)
        with self.translated(key):
            head = await self.head(key)
            return None if head is None else length_of(head)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """As `Store.read`. A reading that broke off goes on where it did, if it is the same object still."""
        self.check_key(key)
        done, failures = 0, 0
        whole: int | None = -1
        same: dict[str, str] = {}
        while whole not in (done, None):
            try:
                async with self._opened(key, done, same) as response:
                    same = {"If-Match": response.headers.get("ETag", "*")}
                    whole = None if response.content_length is None else done + response.content_length
                    reader = object_reader()
                    while block := await reader.read(response.content):
                        done += len(block)
                        yield block
            except (aiohttp.ClientError, TimeoutError) as error:
                failures += 1
                # It may break off once more for every so many bytes that came, else single bytes would make it endless.
                if failures >= TRIES + done // READ_BUFFER:
                    raise StoreUnavailable(
                        f"{key}: its reading broke off after {done} bytes", hint="check the network", store_key=key,
                        error=type(error).__name__,
                    ) from None  # fmt: skip

    @asynccontextmanager
    async def _opened(self, key: str, start: int, same: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**same, "Range": f"bytes={start}-"} if start else {}
        try:
            async with self.wire.open(self.prefix + key, headers) as response:
                if start and response.status != 206:
                    raise StoreUnavailable(f"{key}: the server cannot go on reading where it broke off", store_key=key)
                yield response
        except Refused as refused:
            if self.wire.missing(refused):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None
            if refused.status == 412:
                raise StoreError(
                    f"{key} was replaced while it was read",
                    hint=_WRITTEN_BY_OTHERS,
                    store_key=key,
                ) from None
            raise refused.as_store_error(key, self._hints) from None

    async def remove(self, key: str) -> None:
        """Remove a temporary object, under a key of the bucket; one that is gone is all right. Raises Refused."""
        try:
            await self.wire.send("DELETE", key)
        except Refused as refused:
            if not self.wire.missing(refused) and not self.wire.keeps(key, refused):
                raise


def length_of(head: Mapping[str, str]) -> int:
    """Bytes of an object. Raises Refused."""
    try:
        return int(head.get("Content-Length", ""))
    except ValueError:
        raise Refused(200, "NoLength", "the server does not say how long the object is") from None
