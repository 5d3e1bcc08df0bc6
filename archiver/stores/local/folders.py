"""The folders of a store on a disk, of which none below the root may be a symbolic link: it could lead outside.

Whoever may write somewhere below the root can put a link there at any moment, also between a look and what follows it. So nothing
is done by a path: each folder is opened by its name in the one above it, where a link is refused, and what is done in a folder is
done by its descriptor. The root itself may be a link. It is opened by its path every time, so that a drive that dropped out is
missed, and found again when it is back.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Self, TypeVar

from archiver.stores import MARKER, MAX_MARKER, Advice
from archiver.stores.local.disk import (
    LINK_HINT,
    READABLE,
    Lacking,
    NotRegular,
    longest_name_in,
    names_in,
    open_regular,
    sync_folder,
)

MODE = 0o750
"""Of folders that are made: recordings are not for everybody to list."""

SHARED = 0o770
"""The same in a root that its group may write to, and where the umask lets it: workers of several accounts share such a store."""

KNOWN_FOLDERS = 4096

MAX_LOOKED_AT = 10_000
"""Entries that are looked at for advice."""

MAX_ADVICE = 10

MAX_SHARED = 16
"""Folders that stay open for the next file, at most."""

# Not opened for reading: one that may be passed through and not listed is good enough to reach what lies in it.
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _ROOT | os.O_NOFOLLOW

T = TypeVar("T")


class Shared:
    """Folders that stay open while one file after another goes into folders below them; closed in the end. For one thread."""

    def __init__(self) -> None:
        self.root: int | None = None
        self.below: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of them."""
        descriptors = [*self.below.values(), *(() if self.root is None else (self.root,))]
        self.root = None
        self.below.clear()
        for descriptor in descriptors:
            os.close(descriptor)


class Folders:
    """All folders of one store, named relative to its root, which is "". Everything here blocks, and raises OSError: ELOOP for a
    symbolic link, ENOTDIR for something else that is no folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._known: set[str] = set()
        self._seen = False
        self._mode = MODE
        self._root: tuple[int, int] | None = None  # device and inode of the root that was last written to
        self._marker: bytes | None = None
        self._stuck: set[tuple[str, str]] = set()  # folders and temporary files in them

    @contextmanager
    def opened(self, folder: str) -> Iterator[int]:
        """The descriptor of a folder that is there."""
        descriptor = self._walk(folder, _open_root(self.root), _enter)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def make_in(self, folder: str, make: Callable[[int], T], shared: Shared | None = None) -> tuple[int, T]:
        """Open a folder, made if need be, and `make` something in it; both again if it is removed meanwhile. Returns its
        descriptor, for the caller to close, and what was made. A folder is not durable before its `unsynced` ones are synced.
        `shared`: what is opened of the folders above stays open in it, for the next one.
        """
        with Shared() if shared is None else nullcontext(shared) as above:
            try:
                return self._make_in(folder, make, above)
            except FileNotFoundError:
                self._known.clear()
                above.close()
                return self._make_in(folder, make, above)

    def _make_in(self, folder: str, make: Callable[[int], T], shared: Shared) -> tuple[int, T]:
        descriptor = self._walk_made(folder, shared)
        try:
            return descriptor, make(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def leads_to(self, folder: str, descriptor: int) -> bool:
        """Whether a folder's name still leads to what was opened by it: it may have been moved away, with a drive or by hand."""
        try:
            named = os.stat(f"{self.root}/{folder}", follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def unsynced(self, folder: str) -> list[str]:
        """The folders to sync for what was put into `folder` to be durable: itself, and those above it, one by one, as far as
        this process does not know that they are. One that it does not know may have been made a moment ago, by another, which has
        not come to that.
        """
        found = [folder]
        while folder and folder not in self._known:
            folder = os.path.dirname(folder)
            found.append(folder)
        return found

    def know(self, synced: list[str]) -> None:
        """What `unsynced` named is synced: all but the last one of them are durable with all that is above."""
        if len(self._known) >= KNOWN_FOLDERS:
            self._known.clear()
        self._known.update(synced[:-1])

    def longest_name(self) -> int:
        """Bytes of the longest name in the root, as found by trying."""
        root, longest = self.make_in("", longest_name_in)
        os.close(root)
        return longest

    def empty(self) -> bool:
        """Whether the root has nothing in it but hidden files and what a new file system has, or is not there yet."""
        try:
            with self.opened("") as root:
                return all(name.startswith(".") or name == "lost+found" for name in names_in(root))
        except FileNotFoundError:
            return True

    def advise(self) -> list[Advice]:
        """Links where folders should be, in the root and in its folders."""
        found: list[Advice] = []
        looked_at = 0
        folders = [""]
        for folder in folders:
            with suppress(OSError), self.opened(folder) as descriptor:
                for name in names_in(descriptor):
                    looked_at += 1
                    path = f"{folder}/{name}".lstrip("/")
                    kind = stat.S_IFMT(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
                    if kind == stat.S_IFLNK:
                        found.append(_advice_on_link(f"{self.root}/{path}"))
                    elif kind == stat.S_IFDIR and not folder:
                        folders.append(path)
                    if len(found) == MAX_ADVICE or looked_at == MAX_LOOKED_AT:
                        return found
        return found

    def remove_part(self, folder: str, part: str, opened: int) -> None:
        """Remove a temporary file of ours from a folder, of which `opened` is the descriptor. One that cannot be, because its
        drive went away under it, is kept for `remove_stuck`.
        """
        try:
            # Gone: another worker swept it, having seen this one's lease run out, or its folder was removed.
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=opened)
        except OSError:
            self._stuck.add((folder, part))
            raise
        self._stuck.discard((folder, part))

    def remove_stuck(self) -> None:
        """Remove the temporary files that could not be removed, as far as that is possible by now: the folder of one may be gone
        for good.
        """
        for folder, part in list(self._stuck):
            with suppress(OSError), self.opened(folder) as opened:
                self.remove_part(folder, part, opened)

    # --- step by step

    @staticmethod
    def _walk(folder: str, descriptor: int, step: Callable[[int, str, str], int]) -> int:
        path = ""
        for name in folder.split("/") if folder else ():
            path = f"{path}/{name}" if path else name
            above = descriptor
            try:
                descriptor = step(above, name, path)
            finally:
                os.close(above)
        return descriptor

    def _walk_made(self, folder: str, shared: Shared) -> int:
        """Those above that have been used before are shared. The last one can be synced, if its mode lets us read it."""
        if shared.root is None:
            shared.root = self._made_root()
        above, path = shared.root, ""
        if not folder:
            return os.dup(above)
        *names, last = folder.split("/")
        ours: int | None = None
        try:
            for name in names:
                path = f"{path}/{name}" if path else name
                below = shared.below.get(path)
                if below is None:
                    keep = path in self._known and len(shared.below) < MAX_SHARED
                    below = self._made(above, name, path, _enter)
                    if ours is not None:
                        os.close(ours)
                    ours = below
                    if keep:
                        shared.below[path], ours = below, None
                above = below
            return self._made(above, last, folder, _enter_readable)
        finally:
            if ours is not None:
                os.close(ours)

    def _made(self, above: int, name: str, path: str, enter: Callable[[int, str, str], int]) -> int:
        if path in self._known:
            with suppress(FileNotFoundError):
                return enter(above, name, path)
            self._known.clear()  # it has been removed
        with suppress(FileExistsError):
            os.mkdir(name, self._mode, dir_fd=above)
        return enter(above, name, path)

    def _made_root(self) -> int:
        try:
            descriptor = _open_root(self.root)
        except FileNotFoundError:
            if self._seen:
                # It was there: a drive has dropped out. Made again, it would hide what lies on that drive.
                raise FileNotFoundError(errno.ENOENT, "the folder of storage.url is gone") from None
            self._make_root()
            descriptor = _open_root(self.root)
        try:
            self._check_root(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not self._seen:
            self._mode = SHARED if os.fstat(descriptor).st_mode & stat.S_IWGRP else MODE
            self._seen = True
        return descriptor

    def _check_root(self, descriptor: int) -> None:
        """Raises OSError where the root is another folder than before, such as the empty one below a disk that is unmounted, and
        has not the marker that the former one had.
        """
        found = os.fstat(descriptor)
        here = (found.st_dev, found.st_ino)
        if self._marker is None or here != self._root:
            marker = _marker_in(descriptor)
            if self._marker is not None and marker != self._marker:
                raise Lacking(
                    errno.ENODEV,
                    f"another folder is in the place of storage.url: it does not have this store's {MARKER}",
                    "mount the store's disk there; the worker goes on by itself",
                )
            self._marker = marker
        self._root = here

    def _make_root(self) -> None:
        above = [self.root]
        while not os.path.isdir(above[-1]):
            above.append(os.path.dirname(above[-1]))
        for missing in reversed(above[:-1]):
            with suppress(FileExistsError):
                os.mkdir(missing, MODE)
            sync_folder(os.path.dirname(missing))


def _marker_in(root: int) -> bytes | None:
    try:
        descriptor = open_regular(MARKER, root)
    except (FileNotFoundError, NotRegular):
        return None
    try:
        return os.read(descriptor, MAX_MARKER)
    finally:
        os.close(descriptor)


def _open_root(root: str) -> int:
    try:
        return os.open(root, _ROOT)
    except NotADirectoryError:
        # Not ENOTDIR: that is what is said of one key's folder.
        raise OSError(errno.ENODEV, "the folder of storage.url is no folder") from None


def _advice_on_link(path: str) -> Advice:
    if not os.path.isdir(path):
        return Advice(f"{path} is a symbolic link, which is not followed", LINK_HINT)
    link, there = shlex.quote(path), shlex.quote(os.path.realpath(path))
    mount = f"rm {link} && mkdir {link} && mount --bind {there} {link}"
    return Advice(
        f"{path} is a symbolic link, which is not followed: nothing below it is read, nothing can be kept there",
        f"if you made it, mount the folder there, as root, and in /etc/fstab: {mount}",
    )


def _enter(above: int, name: str, path: str, flags: int = _BELOW) -> int:
    try:
        return os.open(name, flags, dir_fd=above)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, f"{path} is a symbolic link") from None
        raise


def _enter_readable(above: int, name: str, path: str) -> int:
    try:
        return _enter(above, name, path, READABLE | os.O_NOFOLLOW)
    except PermissionError:
        return _enter(above, name, path)
