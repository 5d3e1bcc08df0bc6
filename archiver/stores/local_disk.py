"""Files on a disk: the temporary one that hashes what it takes, and what the system says when it refuses."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.errors import StoreError, StoreUnavailable

MOST_PIECES = 1000
"""So many pieces are written at once, at most: the system takes 1,024."""

_HINTS = {
    errno.ENOSPC: "free disk space, or move storage.url",
    errno.EDQUOT: "raise the quota of the archiver's user",
    errno.EACCES: "let the archiver's user write there",
    errno.EPERM: "let the archiver's user write there; the file system must offer hard links",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.ENOTSUP: "the file system offers no hard links, which are what keeps files from being overwritten",
    errno.ENAMETOOLONG: "shorten storage.path",
    errno.EFBIG: "the file is larger than the file system, or the user's limit, allows",
}

_OF_ONE_KEY = frozenset({errno.ENAMETOOLONG, errno.EFBIG, errno.EILSEQ, errno.EINVAL})
"""What one key or one object alone is to blame for: the store itself is well."""

E = TypeVar("E", bound=StoreError)

Pieces = list[bytes]


class Part:
    """A temporary file that hashes what it writes, in the same hop to a thread."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self.sha256 = hashlib.sha256()
        self.length = 0
        """What was to be written."""
        self.written = 0

    def fileno(self) -> int:
        """The file's number."""
        return self._descriptor

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def writelines(self, pieces: Pieces) -> None:
        """Append all of them."""
        # Counted before it is written: after a write that failed no later one makes the lengths agree, so that nothing is saved.
        size = sum(map(len, pieces))
        self.length += size
        for piece in pieces:
            self.sha256.update(piece)
        written = os.writev(self._descriptor, pieces)
        self.written += written
        if written < size:
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                written = os.write(self._descriptor, rest)
                self.written += written
                rest = rest[written:]


@wrap.register
def _(file: Part, *, loop: asyncio.AbstractEventLoop | None = None, executor: ThreadPoolExecutor | None = None) -> AsyncFileIO:
    return AsyncFileIO(file, loop=loop, executor=executor)  # type: ignore[arg-type]  # what it calls, a Part has


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Turn what the system says into errors of ours."""
    try:
        yield
    except OSError as error:
        raise told(error, key, StoreError if error.errno in _OF_ONE_KEY else StoreUnavailable) from None


def told(error: OSError, key: str, kind: type[E]) -> E:
    return kind(
        f"{key} cannot be kept: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "check the disk and the folder of storage.url"),
        store_key=key,
        error=errno.errorcode.get(error.errno or 0, type(error).__name__),
    )
