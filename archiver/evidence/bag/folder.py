"""Writing a bag's files: each is new, durable, and nothing that is there is overwritten."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archiver.errors import ArchiverError

BLOCK = 2**20

_HINTS = {
    errno.EEXIST: "choose a name that is free: nothing is overwritten",
    errno.ENOENT: "choose a folder that is there",
    errno.ENOTDIR: "choose a folder: that is none",
    errno.ENOSPC: "free disk space; the same command then goes on",
    errno.EDQUOT: "raise the quota; the same command then goes on",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EFBIG: "choose a file system that takes files of this size",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        where = error.filename if isinstance(error.filename, (str, bytes)) else folder
        raise ArchiverError(
            f"{os.fsdecode(where)}: {error.strerror or error}",
            hint=_HINTS.get(error.errno or 0, "look after the folder's disk; the same command then goes on"),
        ) from None


class NewFile:
    """A file that was not there before, hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        self.sha256 = hashlib.sha256()
        self.bytes = 0
        # Whoever waits for a thread may be cancelled: a number that is closed under it may soon be another file's.
        self._busy = threading.Lock()

    def write(self, block: bytes) -> None:
        """Append this."""
        with self._busy:
            self.sha256.update(block)
            self.bytes += len(block)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def save(self) -> None:
        """Make it durable."""
        with self._busy:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of it."""
        with self._busy:
            os.close(self._descriptor)


def write_new(path: Path, content: bytes) -> None:
    """A whole small file, durably."""
    file = NewFile(path)
    try:
        file.write(content)
        file.save()
    finally:
        file.close()


def keep_names(folder: Path) -> None:
    """Make the names in a folder durable, where a file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # exFAT, FUSE: what is lost with the power is made again
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_new(source: Path, target: Path) -> None:
    """Give a file or folder of ours its name, which nothing has. Not by hard links: sticks and shares have none."""
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def remove_tree(folder: Path) -> None:
    """Remove a folder of ours, if it is there. Raises OSError."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and length of a regular file. Raises OSError for a link."""
    digest, length = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            length += len(block)
    return digest.hexdigest(), length
