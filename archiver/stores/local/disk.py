"""Files on a disk: the temporary one that hashes what it takes, those that are there, what the system says when it refuses."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.errors import StoreError, StoreUnavailable

BLOCK = 1024 * 1024
"""Bytes that go to the disk, or come from it, at a time: a hop to a thread costs as much as writing many kilobytes."""

MAX_NAME = 255
"""Bytes of the longest name that is tried."""

_TRIED_NAME = ".check-name-"

MAX_PIECES = 1000
"""So many pieces are written at once, at most: the system takes 1,024."""

READABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

LINK_HINT = "put the folder or file itself there, or mount it: below the folder of storage.url links could lead anywhere"

_LINKS = "the file system offers no hard links, by which nothing is ever overwritten"
_LINKS_HINT = "use one that does, such as ext4, XFS, Btrfs, ZFS or NFS, or an object store (s3://, az://)"
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
"""What link(2) answers where there are none: exFAT, FUSE file systems such as sshfs, CIFS."""

_SYNC = "the file system cannot make folders durable (fsync of a folder)"
_SYNC_HINT = "use one that can, such as ext4, XFS, Btrfs, ZFS or NFS, or an object store (s3://, az://)"
_NO_SYNC = frozenset({errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


class Lacking(OSError):
    """What a store needs is not there, whichever file it is: something of the file system, or the disk. `hint` is what to do."""

    def __init__(self, number: int, what: str, hint: str) -> None:
        super().__init__(number, what)
        self.hint = hint


_HINTS = {
    errno.ENOSPC: "free disk space, or move storage.url",
    errno.EDQUOT: "raise the quota of the archiver's user",
    errno.EACCES: "let the archiver's user read and write there",
    errno.EPERM: "let the archiver's user write there",
    errno.EROFS: "the file system is read-only: mount it for writing",
    errno.EXDEV: "put quarantine/ on the file system of the others, or on one where a file can be without a name (not NFS)",
    errno.ENAMETOOLONG: "shorten storage.path",
    errno.EFBIG: "the file is larger than the file system, or the user's limit, allows",
    errno.ELOOP: LINK_HINT,
    errno.ENOTDIR: "move away what lies where a folder must be",
}

_OF_ONE_KEY = frozenset({errno.ENAMETOOLONG, errno.EFBIG, errno.EILSEQ, errno.EINVAL, errno.ELOOP, errno.ENOTDIR, errno.EAGAIN})
"""What one key or one object alone is to blame for: the store itself is well."""

E = TypeVar("E", bound=StoreError)

Pieces = list[bytes]


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegular(Exception):
    """What has the name of a file is none, but what `str()` says."""


class Part:
    """A temporary file that hashes what it writes, in the same hop to a thread. `folder`: the descriptor of where it lies."""

    def __init__(self, name: str, folder: int, mode: int = 0o640) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(name, flags, mode, dir_fd=folder)
        self.name = name
        self.folder = folder
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


def kind_of(mode: int) -> str:
    """What lies there, for people; empty for a regular file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "none")


def open_regular(name: str, folder: int) -> int:
    """Open a file of a folder for reading: never what a link leads to, never waiting for the other end of a FIFO. Raises
    NotRegular.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotRegular(kind_of(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)) from None
        raise
    if kind := kind_of(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(kind)
    return descriptor


def copied(file: Part, folder: int) -> int:
    """A durable copy of a temporary file in a folder of another file system, open, and without a name until it is linked to one:
    a process that is killed leaves nothing.
    """
    try:
        copy = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o640, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):  # such as NFS
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from None
        raise
    try:
        _copy(file, copy)
        os.fsync(copy)
    except BaseException:
        os.close(copy)
        raise
    return copy


def _copy(file: Part, copy: int) -> None:
    digest = hashlib.sha256()
    original = open_regular(file.name, file.folder)
    try:
        while block := os.read(original, BLOCK):
            digest.update(block)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(copy, rest) :]
    finally:
        os.close(original)
    if digest.digest() != file.sha256.digest():  # another file was put under its name
        raise OSError(errno.EIO, "the temporary file is not what was written")


def hash_of(descriptor: int, limit: int) -> str | None:
    """The SHA-256 of a file, read from its beginning; None for one of more than `limit` bytes, of which no more is read."""
    if os.fstat(descriptor).st_size > limit:
        return None
    digest = hashlib.sha256()
    while block := os.read(descriptor, BLOCK):
        digest.update(block)
        limit -= len(block)
        if limit < 0:  # it grows as it is read
            return None
    return digest.hexdigest()


def names_in(folder: int) -> Iterator[str]:
    """What lies in a folder, of which `folder` is the descriptor, as it is read."""
    readable = os.open(".", READABLE, dir_fd=folder)
    try:
        with os.scandir(readable) as entries:
            for entry in entries:
                yield entry.name
    finally:
        os.close(readable)


def sync_folder(folder: str, below: int | None = None) -> None:
    """Make durable which names are in a folder: a path, relative to the descriptor `below`."""
    descriptor = os.open(folder, READABLE, dir_fd=below)
    try:
        _sync_opened(descriptor)
    finally:
        os.close(descriptor)


def sync_opened(folder: int) -> None:
    """The same for one that is open, be it for nothing but to reach what lies in it."""
    try:
        _sync_opened(folder)
    except Lacking as error:
        if error.errno != errno.EBADF:
            raise
        sync_folder(".", folder)


def _sync_opened(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NO_SYNC:
            raise Lacking(error.errno, _SYNC, _SYNC_HINT) from None
        raise


def link_new(source: str, name: str, *, source_folder: int | None, folder: int) -> None:
    """Give a file one more name, unless something has it: FileExistsError then."""
    try:
        os.link(source, name, src_dir_fd=source_folder, dst_dir_fd=folder, follow_symlinks=source_folder is None)
    except OSError as error:
        if error.errno in _NO_LINKS:
            raise Lacking(error.errno, _LINKS, _LINKS_HINT) from None
        raise


def longest_name_in(folder: int) -> int:
    """Bytes of the longest name that a folder takes. Some file systems say more than they take: it is tried."""
    longest = min(os.fstatvfs(folder).f_namemax or MAX_NAME, MAX_NAME)
    shorter = 0
    while shorter < longest:
        tried = longest if shorter == 0 else (shorter + longest + 1) // 2
        name = _TRIED_NAME + "x" * (tried - len(_TRIED_NAME))
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640, dir_fd=folder))
        except FileExistsError:  # another worker tries
            shorter = tried
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            longest, shorter = tried - 1, max(shorter, len(_TRIED_NAME))
        else:
            shorter = tried
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
    return longest


@contextmanager
def translated(key: str, done: str = "kept") -> Iterator[None]:
    """Turn what the system says into errors of ours. `done`: what could not be done with the file."""
    try:
        yield
    except OSError as error:
        one_key = error.errno in _OF_ONE_KEY and not isinstance(error, Lacking)
        raise store_error_of(error, key, StoreError if one_key else StoreUnavailable, done) from None


def store_error_of(error: OSError, key: str, kind: type[E], done: str = "kept") -> E:
    return kind(
        f"{key} cannot be {done}: {error.strerror or error}",
        hint=getattr(error, "hint", "") or _HINTS.get(error.errno or 0, "check the disk and the folder of storage.url"),
        store_key=key,
        error=errno.errorcode.get(error.errno or 0, type(error).__name__),
    )
