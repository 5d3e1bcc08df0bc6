"""Where recordings are kept. What every store guarantees, and one suite of tests holds them all to it:

- After an error, a crash or a cancellation a key holds either a whole object or nothing; never part of one.
- Nothing is ever overwritten: an equal object that exists already counts as saved, an unequal one raises KeyConflict.
- `save` returns only when the object is durable: a power cut an instant later does not take it back.
- The hash is computed on the bytes as they pass; `save` returns it together with the size that the store confirmed.
- What an upload keeps aside until it is saved (a temporary object with a name of its caller's choice in the folder of its target,
  or parts that no reader sees) is gone when the upload is left, however it is left. Only a killed process leaves it; `discard`
  removes it.
- An upload takes no more memory than it has reserved from the `Buffers` that it was given, and a little; it reserves before it
  begins, so that nothing has been opened yet while it waits.
- Everything that fails is a StoreError that names the key.

Keys are relative, with `/`, without scheme or prefix. Callers make them: a store checks only that they stay inside.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from archiver.errors import StoreError
from archiver.runtime.buffers import Buffers

ANY_FILE = "*"
"""Stands for a file's name in a key that is to match any. No template of paths and no clean name has it."""

MARKER = "archiver-store.json"
"""The object that says whose store it is. No template of paths gives this key."""

LEDGER = "evidence/claim/000000000000"
"""The object with which a ledger begins: a store that has it belongs to a database that knows that ledger."""

MAX_MARKER = 4096
"""Bytes of it that are read, at most."""

MAX_COMPARED = 2**30
"""Bytes of the longest object that is hashed where a shorter one was to be kept: that they differ, their lengths say."""


SMALL = 256 * 1024
"""Bytes of an object that is read in less time than it takes to ask for it."""


@dataclass(frozen=True)
class Saved:
    """What the store confirmed. `existed`: an equal object was there before, and this upload was dropped."""

    key: str
    bytes: int
    sha256: str
    existed: bool = False


class Upload(Protocol):
    """One object on its way in."""

    def expect(self, length: int) -> None:
        """So many bytes will come, as far as anybody knows: may be said before the first `write`, and spares memory."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        """Make what was written durable under `key` (the one named at the start, if left out). `guard` is called in the
        last moment before the key appears, and may raise to prevent it. Raises KeyConflict, StoreUnavailable.
        """


class Advice(NamedTuple):
    """What was seen, and what to do about it."""

    seen: str
    hint: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One object, or one version of it, as a store lists it. `bytes` is None for a delete marker, and for what is no regular
    file; `modified` is in UTC. `version` is empty where a store keeps none; `latest`: it is what readers of the key see;
    `deleted`: a delete marker, or an object that is kept for a while only.
    """

    key: str
    bytes: int | None
    modified: datetime
    version: str = ""
    latest: bool = True
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Digest:
    """What an object has: so many bytes, of this SHA-256. None: it is longer than it was said to be, and was not read on."""

    bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class AtOnce:
    """How a store is read fastest: by so many calls of `digests` at once, each for one object, or for so many that have no more
    than SMALL bytes each.
    """

    calls: int
    small: int


Pay = Callable[[int], Awaitable[None]]
"""Is told of so many bytes that were read, and waits until more may be."""


class Store(Protocol):
    """See the module."""

    def upload(self, key: str, *, part: str, movable: bool = False) -> AbstractAsyncContextManager[Upload]:
        """Begin an object that will become `key`; `part` is the name of its temporary object, in the same folder, if the store
        needs one; it may add to that, before the `.part`, what nobody can foresee. Waits for memory, and touches nothing before
        the first byte is written.

        After a KeyConflict it can be saved under another key. Otherwise, however long it is, only if it is `movable`: a bucket
        takes that for a reason to store it aside first, and to copy it.
        """

    def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """The object's bytes in order; whoever leaves off early closes it. Raises StoreError, with `missing` in its facts if
        there is none, with `not_a_regular_file` if what has its name is something else: no link is followed, no FIFO waited for.
        """

    async def digests(self, objects: Sequence[tuple[str, int]], pay: Pay | None = None) -> list[Digest | StoreError]:
        """The SHA-256 of each of these objects, of which so many bytes are expected, read as by `read`: its error in the place of
        what it could not read. They are read one after another.
        """

    def at_once(self) -> AtOnce:
        """How many of them are best read at once."""

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; None if there is none. Raises StoreError as `read` does for what is no file."""

    def list(self, prefix: str = "", *, versions: bool = False) -> AsyncGenerator[Listed, None]:
        """Every object whose key begins with `prefix`, once, in the order of their keys' bytes, but for servers that have another
        one (SeaweedFS goes folder by folder, Azure by UTF-16): then in theirs. With `versions` also what a bucket keeps of
        objects that were overwritten or deleted, within a key the newest first. Whoever leaves off early closes it.

        A folder's temporary and hidden files are listed too, links and the like with no size, and none is followed; names that
        are no UTF-8 come as `os.fsdecode` has them. What appears or goes meanwhile may be listed or not. In memory is one page of
        a bucket, or the names of the folders that lead to where it is. Raises StoreError.
        """

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        """Remove what a killed process left of uploads to `key`, in which ANY_FILE may stand for the file's name: the temporary
        object `part`, in its folder, or parts of uploads begun longer than `left_for` ago (a later claim of the same session may
        be at work there). True if there was something. Never removes anything else.
        """

    def sharing(self, buffers: Buffers) -> Store:
        """The same store, whose uploads wait for other memory: for small objects that must not wait for recordings. It lasts as
        long as this one.
        """

    async def check(self) -> str:
        """Write, read back and delete a small object; returns a line about the store for `doctor`. Raises StoreError."""

    async def free(self) -> int | None:
        """Bytes that are free; None where nobody can know."""

    async def longest_name(self) -> int | None:
        """Bytes of the longest name of a file or folder that can be kept, as found by trying; None if only whole keys have a
        limit. Raises StoreError.
        """

    async def empty(self) -> bool:
        """Whether nothing is there but what trials left. A folder that is not there yet is empty. Raises StoreError."""

    async def advice(self) -> Sequence[Advice]:
        """What is well enough to work with and yet should be different, for `doctor`, after a `check`. Raises StoreError."""


def check_key(key: str) -> None:
    """Raises StoreError for a key that could lead outside of a store, or that no store can hold."""
    safe = key and "\0" not in key and "\\" not in key and not f"/{key}/".count("//")
    if not safe or not {".", ".."}.isdisjoint(key.split("/")) or not _encodable(key):
        raise StoreError(f"{key!r} is not a key of this store", store_key=key)


def check_part(key: str, part: str) -> None:
    """Raises StoreError for what is not the name of a temporary object."""
    if not (part.startswith(".") and part.endswith(".part")) or "/" in part or "\0" in part:
        raise StoreError(f"{part!r} is not a temporary name", store_key=key)


def _encodable(key: str) -> bool:
    try:
        return bool(key.encode())
    except UnicodeEncodeError:
        return False
