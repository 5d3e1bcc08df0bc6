"""What stores in a bucket share, of whatever kind it is: keys, reading, comparing, and keeping house."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, asynccontextmanager
from datetime import timedelta
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import aiohttp

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.runtime.buffers import Buffers
from archiver.runtime.cancellation import to_its_end
from archiver.runtime.retry import TRIES
from archiver.stores import MAX_COMPARED, Saved, check_key, check_part
from archiver.stores.bucket.parts_upload import PartsUpload, settled
from archiver.stores.bucket.refusals import Hints, Refused, translated
from archiver.stores.bucket.wire import READ_BUFFER, Body, Wire, reading_pace

log = logger(__name__)

LONGEST_KEY = 1024
"""Bytes of UTF-8, the prefix included."""


class Parts(Protocol):
    """One object on its way in parts, that nobody sees before they are completed."""

    key: str
    """In the bucket: with the store's prefix."""

    completed: bool

    @property
    def length(self) -> int:
        """Bytes in its parts."""


class PartsSettings(Protocol):
    """How long objects are cut."""

    @property
    def part_size(self) -> int:
        """Bytes."""

    @property
    def parts_in_flight(self) -> int:
        """At a time."""


class Trial(Protocol):
    """What a server is known to keep to."""

    @property
    def deletes(self) -> bool:
        """Whether the trial could remove its own objects."""


P = TypeVar("P", bound=Parts)
T = TypeVar("T", bound=Trial)


class BucketStore(ABC, Generic[P, T]):
    """A store in a bucket. Its heirs say how an object is written, and what their server proves of it."""

    hints: ClassVar[Hints]

    proof: ClassVar[Literal["sha256", "md5"]]
    """What the server holds parts against."""

    def __init__(self, wire: Wire, at: str, prefix: str, settings: PartsSettings, buffers: Buffers) -> None:
        self.prefix = prefix
        self.parts_in_flight = settings.parts_in_flight
        self._at = at
        self._requests = wire
        self._part_size = settings.part_size
        self._buffers = buffers
        self._tried: T | None = None
        self._trying = asyncio.Lock()
        self._stuck: list[tuple[P, bool]] = []

    # --- what differs

    @abstractmethod
    def known(self) -> T | None:
        """What is known of the server without trying it, if anything."""

    @abstractmethod
    async def try_server(self) -> T:
        """Hold the server to what is needed of it. Raises Refused, StoreUnavailable."""

    @abstractmethod
    async def head(self, key: str) -> Mapping[str, str] | None:
        """The headers of an object, without its bytes; None if there is none. Raises Refused."""

    @abstractmethod
    def missing(self, refused: Refused) -> bool:
        """Whether a refusal says that there is no such object, rather than no such bucket."""

    @abstractmethod
    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        """An object in one request. `body` has its SHA-256, and its proof. Raises Refused, KeyConflict."""

    @abstractmethod
    def parts(self, key: str) -> P:
        """An object to be sent in parts, under a key of the bucket."""

    @abstractmethod
    async def begin(self, parts: P) -> None:
        """Tell the server of it, if it needs to be told. Raises Refused."""

    @abstractmethod
    async def send_part(self, parts: P, number: int, body: Body) -> None:
        """A part of an object. `body` has its proof. Raises Refused."""

    @abstractmethod
    async def complete(self, parts: P, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        """An object of its parts. Raises Refused, KeyConflict."""

    @abstractmethod
    async def copy(self, source: P, source_key: str, key: str, sha256: bytes, begun: Callable[[P], None]) -> P:
        """What lies under `source_key` once more, in parts, ready to be completed as `key`. Whatever is begun is told to `begun`,
        to be taken back in the end. Raises Refused.
        """

    @abstractmethod
    async def take_back(self, parts: P, *, aside: bool, interrupted: bool) -> None:
        """Remove what an upload left that was not saved. `aside`: its object was to be a temporary one; `interrupted`: a part was
        under way, and may arrive after all. Raises Refused.
        """

    # --- keys

    def check_key(self, key: str) -> None:
        """Raises StoreError for a key that could leave the prefix, or that the server does not take."""
        check_key(key)
        if len((self.prefix + key).encode()) > LONGEST_KEY:
            raise StoreError(f"{key} cannot be kept: longer than {LONGEST_KEY} bytes", hint="shorten storage.path", store_key=key)

    def part_key(self, key: str, part: str) -> str:
        """The key of a temporary object. Raises StoreError."""
        self.check_key(key)
        check_part(key, part)
        return "/".join((*key.split("/")[:-1], part))

    def translated(self, key: str) -> AbstractContextManager[None]:
        """Turns refusals into errors of ours, about this key."""
        return translated(key, self.hints)

    # --- writing

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[PartsUpload[P, T]]:
        part_key = self.part_key(key, part)
        async with self._buffers.reserve(self._part_size) as memory:
            upload = PartsUpload(self, key, part_key, memory, movable=movable)
            try:
                yield upload
            finally:
                await to_its_end(upload.drop())

    async def tried(self) -> T:
        """What the server is known to keep to; tried once, before the first object, unless it is known already."""
        if self._tried is None:
            async with self._trying:
                if self._tried is None:
                    self._tried = self.known() or await settled(self.try_server())
        assert self._tried is not None
        return self._tried

    async def stored(self, key: str) -> bool:
        """Whether something lies under a key. Raises Refused."""
        return await self.head(key) is not None

    async def compare(self, key: str, length: int, sha256: bytes, parts: P | None = None) -> Saved:
        """Hold what lies under a key against what should, `parts` of ours perhaps: by reading it, as its metadata may say
        anything, unless the server knows better. Raises Refused, KeyConflict.
        """
        head = await self.head(key)
        if head is None:
            raise StoreUnavailable(f"{key} was there a moment ago and is gone", hint="who deletes there?", store_key=key)
        size = length_of(head)
        stored = await self.vouched(head, length, sha256, parts)
        if not stored and size <= (limit := max(length, MAX_COMPARED)):
            stored = await self._hash_of(key, limit)
        if stored != sha256:
            hashed = stored.hex() or None
            raise KeyConflict(key, stored_sha256=hashed, stored_bytes=size, sha256=sha256.hex(), size=length)
        return Saved(key, size, stored.hex(), existed=True)

    async def vouched(self, head: Mapping[str, str], length: int, sha256: bytes, parts: P | None) -> bytes:
        """The SHA-256 of an object, as far as the server itself vouches for it; empty where it does not."""
        return b""

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

    # --- reading

    async def size(self, key: str) -> int | None:
        self.check_key(key)
        with self.translated(key):
            head = await self.head(key)
            return None if head is None else length_of(head)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        self.check_key(key)
        done, failures = 0, 0
        whole: int | None = -1
        same: dict[str, str] = {}
        while whole not in (done, None):
            try:
                async with self._opened(key, done, same) as response:
                    same = {"If-Match": response.headers.get("ETag", "*")}
                    whole = None if response.content_length is None else done + response.content_length
                    pace = reading_pace()
                    while block := await pace.read(response.content):
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
            async with self._requests.open(self.prefix + key, headers) as response:
                if start and response.status != 206:
                    raise StoreUnavailable(f"{key}: the server cannot go on reading where it broke off", store_key=key)
                yield response
        except Refused as refused:
            if self.missing(refused):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None
            if refused.status == 412:
                raise StoreError(f"{key} was replaced while it was read", hint="who writes there?", store_key=key) from None
            raise refused.told(key, self.hints) from None

    # --- keeping house

    def left_behind(self, parts: P, *, aside: bool) -> None:
        """An upload that could not be taken back."""
        self._stuck.append((parts, aside))

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        left = self.part_key(key, part)
        with self.translated(key):
            found = await self.stored(left)
            if found:
                await self.remove(self.prefix + left)
            return await self.sweep(key, left, left_for) or found

    async def remove(self, key: str) -> None:
        """Remove a temporary object, under a key of the bucket; one that is gone is all right. Raises Refused."""
        try:
            await self._requests.send("DELETE", key)
        except Refused as refused:
            if not self.missing(refused):
                raise

    async def sweep(self, key: str, part_key: str, left_for: timedelta) -> bool:
        """Remove parts as `Store.discard` says, where a server has such that can be removed. Raises Refused."""
        return False

    async def check(self) -> str:
        for left in list(self._stuck):
            parts, aside = left
            try:
                await self.take_back(parts, aside=aside, interrupted=False)
            except Refused as refused:
                # Whether the store works, the trial alone decides.
                log.warning("upload_left_behind", store_key=parts.key, error=refused.code, told=refused.message)
            else:
                self._stuck.remove(left)  # only now: whatever else ends this check, the next one knows of it
        with self.translated(self._at):
            self._tried = await self.try_server()
        return f"{self._at} at {self.endpoint}, overwrites nothing"

    @property
    @abstractmethod
    def endpoint(self) -> str:
        """Where requests go, for people."""

    async def free(self) -> None:
        return None


def length_of(head: Mapping[str, str]) -> int:
    """Bytes of an object. Raises Refused."""
    try:
        return int(head.get("Content-Length", ""))
    except ValueError:
        raise Refused(200, "NoLength", "the server does not say how long the object is") from None
