"""What lies in a folder and below it, in the order of keys, without following any link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice

from archiver.errors import StoreError
from archiver.stores import Listed
from archiver.stores.local.disk import READABLE, translated
from archiver.stores.local.folders import Folders

BATCH = 1000
"""Objects that are looked at in one hop to a thread."""

MAX_DEPTH = 100
"""Folders below each other: each is held open. A key of ours has a handful."""

_OF_THE_FILE_SYSTEM = "lost+found"
"""In the root, where nobody but root may look."""

_BELOW = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_RDONLY


class Listing:
    """One walk through a store, whose steps block. `close` ends it wherever it is. Raises StoreError."""

    def __init__(self, folders: Folders, prefix: str) -> None:
        try:
            self._prefix = os.fsencode(prefix)
        except UnicodeEncodeError:
            raise StoreError(f"{prefix!r} begins no key of this store", store_key=prefix) from None
        self._objects = self._walk_root(folders)

    def batch(self) -> list[Listed]:
        """The next ones; none at the end."""
        return list(islice(self._objects, BATCH))

    def close(self) -> None:
        """Let go of all folders."""
        self._objects.close()

    def _walk_root(self, folders: Folders) -> Generator[Listed, None, None]:
        with translated(folders.root, "listed"):
            try:
                # By its own name: it may be a link. And by no other: what the store has opened may not be readable.
                with folders.opened("") as root:
                    descriptor = os.open(".", READABLE, dir_fd=root)
            except FileNotFoundError:
                return
        yield from self._walk(descriptor, b"")

    def _walk(self, descriptor: int, path: bytes) -> Iterator[Listed]:
        """Everything in a folder, of which `path` is the key with a `/` at its end. The descriptor is closed here."""
        try:
            if path.count(b"/") > MAX_DEPTH:
                deep = os.fsdecode(path[:200])
                raise StoreError(f"{deep}... cannot be listed: more than {MAX_DEPTH} folders deep",
                                 hint="find out who made these folders, and move them away", store_key=deep)  # fmt: skip
            with translated(os.fsdecode(path), "listed"):
                names = sorted(self._names_in(descriptor, path))
            for name in names:
                if name.endswith(b"/"):
                    with translated(os.fsdecode(path + name), "listed"):
                        below = _enter(descriptor, name[:-1])
                    if below is not None:
                        yield from self._walk(below, path + name)
                else:
                    with translated(os.fsdecode(path + name), "listed"), suppress(FileNotFoundError):
                        yield _listed(descriptor, name, path + name)
        finally:
            os.close(descriptor)

    def _names_in(self, descriptor: int, path: bytes) -> Iterator[bytes]:
        """What may belong to the prefix; folders with a `/` at the end, as which they sort."""
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                folder = entry.is_dir(follow_symlinks=False)
                if not path and folder and entry.name == _OF_THE_FILE_SYSTEM:
                    continue
                key = path + name + (b"/" if folder else b"")
                if key.startswith(self._prefix) or (folder and self._prefix.startswith(key)):
                    yield name + (b"/" if folder else b"")


def _enter(above: int, name: bytes) -> int | None:
    """None for a folder that has gone, or become something else, since its name was read."""
    try:
        return os.open(name, _BELOW, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _listed(folder: int, name: bytes, key: bytes) -> Listed:
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    size = found.st_size if stat.S_ISREG(found.st_mode) else None
    try:
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):  # somebody gave it a time that no calendar has
        modified = datetime.max.replace(tzinfo=UTC)
    return Listed(os.fsdecode(key), size, modified)
