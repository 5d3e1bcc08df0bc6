"""What each kind of bucket does its own way: a small set of requests, which S3 and Azure implement and `BucketStore` uses.

Keys of a `Driver` are the store's; that of `Parts` is the bucket's, with the store's prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol
from xml.etree.ElementTree import Element

from archiver.runtime.cancellation import settled
from archiver.stores import Advice, Listed, Saved
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Answer, Body

LISTED = 1000
"""Keys that one request lists, at most."""


MAX_EMPTY = 1000
"""Pages of a listing without any object, one after another: a service may give some, and one that gives no others never ends."""


def pages_on() -> Callable[[str, int], None]:
    """A check that raises Refused for a listing without end: it is told where the next page begins, how many the last had."""
    before, pages, renewed_at, empty = "", 0, 1, 0

    def check(marker: str, objects: int) -> None:
        nonlocal before, pages, renewed_at, empty
        empty = 0 if objects else empty + 1
        if not marker or marker == before or empty > MAX_EMPTY:
            raise Refused(200, "EndlessListing", "the server's listing goes round in circles: is this the right kind of server?")
        pages += 1
        if pages == renewed_at:  # Brent's way to find a circle of any length while remembering one place
            before, renewed_at = marker, 2 * renewed_at

    return check


def listing_in(answer: Answer, root: str) -> Element:
    """The document of a listing. Raises Refused for any other: what is none has no objects, and would look like an empty one."""
    page = answer.xml()
    if page.tag != root:
        raise Refused(200, "NoListing", f"the server answers {page.tag[:50]!r} and not {root}: is this the right kind of server?")
    return page


@dataclass(frozen=True)
class Tried:
    """What a server keeps to, as a trial showed it or as it is documented."""

    verifies: bool = True
    """It refuses a body that has not the hash it was sent with, and repeats that of one that has."""
    deletes: bool = True
    """The trial could remove its own objects."""


class Trial:
    """Holds a server to what is needed of it: once, before the first object, unless it is `documented`, and again for a check.

    `try_server` raises Refused, and StoreUnavailable for a server that must not be used.
    """

    def __init__(self, documented: Tried | None, try_server: Callable[[], Coroutine[Any, Any, Tried]]) -> None:
        self._try_server = try_server
        self._tried = documented
        self._lock = asyncio.Lock()

    async def result(self) -> Tried:
        """What the server keeps to."""
        if self._tried is not None:
            return self._tried
        async with self._lock:
            if self._tried is None:
                self._tried = await settled(self._try_server())
            return self._tried

    async def again(self) -> None:
        """Try it now, whatever is known of it."""
        self._tried = await self._try_server()

    def skip(self, tried: Tried) -> None:
        """Take this for granted, without a trial."""
        self._tried = tried


class Parts(Protocol):
    """One object on its way in parts, that nobody sees before they are completed. All raise Refused."""

    @property
    def key(self) -> str:
        """In the bucket: with the store's prefix."""

    @property
    def completed(self) -> bool:
        """Whether the object is there."""

    @property
    def length(self) -> int:
        """Bytes in its parts."""

    async def begin(self) -> None:
        """Tell the server of it, if it needs to be told."""

    async def send(self, number: int, body: Body) -> None:
        """A part of the object. `body` has its proof."""

    async def complete(self, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        """The object of its parts, under a key of the store. Raises KeyConflict."""

    async def compare(self, key: str, sha256: bytes) -> Saved:
        """Hold what lies under a key of the store against these parts. Raises KeyConflict."""

    async def copy(self, source_key: str, key: str, sha256: bytes, begun: Callable[[Parts], None]) -> Parts:
        """This object, which lies under `source_key`, once more in parts, ready to be completed as `key`. Whatever is begun is
        given to `begun`, to be taken back in the end.
        """

    async def take_back(self, *, aside: bool, interrupted: bool) -> None:
        """Remove what an upload left that was not saved. `aside`: its object was to be a temporary one; `interrupted`: a part was
        under way, and may arrive after all.
        """


class Driver(Protocol):
    """The requests of one kind of bucket."""

    @property
    def endpoint(self) -> str:
        """Where requests go, for people."""

    @property
    def proof(self) -> Literal["sha256", "md5"]:
        """What the server holds parts against."""

    @property
    def trial(self) -> Trial:
        """What the server is known to keep to."""

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        """An object in one request. `body` has its SHA-256, and its proof. Raises Refused, KeyConflict."""

    def parts(self, key: str) -> Parts:
        """An object to be sent in parts, under a key of the bucket."""

    async def sweep(self, key: str, part_key: str, left_for: timedelta) -> bool:
        """Remove parts as `Store.discard` says, where a server has such that can be removed. Raises Refused."""

    async def first_names(self) -> Sequence[str]:
        """The first keys of the store, as many as one request lists. Raises Refused."""

    def list(self, prefix: str, *, versions: bool) -> AsyncGenerator[Listed, None]:
        """As `Store.list`, of keys of the bucket. Raises Refused."""

    async def advice(self) -> Sequence[Advice]:
        """As `Store.advice`."""
