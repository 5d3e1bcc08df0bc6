"""Recordings in a folder: temporary file in the target's folder -> write and hash -> fsync -> link -> fsync the folder.

The last step is `link`, not `rename`: a rename overwrites, a link does not.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import aiofiles
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.buffers import Buffers
from archiver.cancellation import to_its_end
from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.stores import Advice, Saved

BLOCK = 1024 * 1024
"""Bytes collected before they go to the disk: a hop to a thread costs as much as writing many kilobytes."""

T = TypeVar("T")

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

KNOWN_FOLDERS = 4096


class _HashingFile(io.FileIO):
    """Hashes what it writes, in the same hop to a thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640), "wb")
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes | bytearray, /) -> int:  # type: ignore[override]  # bytes are all that comes here
        # Counted before it is written: after a write that failed no later one makes the lengths agree, so that nothing is saved.
        self.length += len(data)
        self.sha256.update(data)
        view = memoryview(data)
        while view:
            view = view[super().write(view) or 0 :]
        return len(data)


class _LocalUpload:
    def __init__(self, store: LocalStore, key: str, part: Path) -> None:
        self._store = store
        self._key = key
        self._part = part
        self._buffer = bytearray()
        self._opened: _HashingFile | None = None

    def create(self) -> None:
        """Make the temporary file; blocks."""
        self._store.make_folder(self._part.parent)
        self._opened = _HashingFile(self._part)

    def drop(self) -> None:
        """Remove the temporary file, if this upload made it; blocks."""
        if self._opened is None:
            return
        with suppress(OSError):
            self._opened.close()
        self._store.remove(self._part)

    @property
    def _raw(self) -> _HashingFile:
        assert self._opened is not None
        return self._opened

    def expect(self, length: int) -> None:
        pass

    async def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= BLOCK:
            await self._flush()

    async def _flush(self) -> None:
        if self._buffer:
            block, self._buffer = self._buffer, bytearray()
            file: AsyncFileIO = wrap(self._raw)
            with _translated(self._key):
                # To its end: a file must not be closed under a running write, since its number may by then be another file's.
                await to_its_end(file.write(block))

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        await self._flush()
        with _translated(key):
            return await to_its_end(asyncio.to_thread(self._commit, key, guard))

    def _commit(self, key: str, guard: Callable[[], None] | None) -> Saved:
        target = self._store.path(key)
        digest = self._raw.sha256.hexdigest()
        os.fsync(self._raw.fileno())
        written = os.fstat(self._raw.fileno()).st_size
        if written != self._raw.length:
            raise StoreUnavailable(f"{key}: wrote {self._raw.length} bytes, the file has {written}", store_key=key)
        self._store.make_folder(target.parent)
        if guard is not None:
            guard()
        try:
            target.hardlink_to(self._part)
        except FileExistsError:
            return self._compare(key, target, digest)
        # The link is not durable until its folder is.
        _sync_folder(target.parent)
        return Saved(key, written, digest)

    def _compare(self, key: str, target: Path, digest: str) -> Saved:
        if target.is_symlink() or not target.is_file():
            raise StoreError(f"{key} exists and is not a plain file", hint="move it away", store_key=key)
        with target.open("rb") as file:
            stored = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            os.fsync(file.fileno())
        if stored != digest:
            raise KeyConflict(key, stored_sha256=stored, stored_bytes=size, sha256=digest, size=self._raw.length)
        # It may have been linked by a worker that died before this.
        _sync_folder(target.parent)
        return Saved(key, size, digest, existed=True)


class LocalStore:
    """A `file://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, root: Path, buffers: Buffers) -> None:
        self.root = root
        self._buffers = buffers
        self._known_folders: set[Path] = set()
        self._stuck: set[Path] = set()
        self._seen = False

    def path(self, key: str) -> Path:
        """The file of a key. Raises StoreError for a key that could leave the root."""
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts) or not _encodable(key):
            raise StoreError(f"{key!r} is not a key of this store", store_key=key)
        return self.root.joinpath(*parts)

    def _part_path(self, key: str, part: str) -> Path:
        if not (part.startswith(".") and part.endswith(".part")) or "/" in part or "\0" in part:
            raise StoreError(f"{part!r} is not a temporary name", store_key=key)
        return self.path(key).with_name(part)

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[_LocalUpload]:
        upload = _LocalUpload(self, key, self._part_path(key, part))
        try:
            with _translated(key):
                await to_its_end(asyncio.to_thread(upload.create))
            yield upload
        finally:
            with _translated(key):
                await to_its_end(asyncio.to_thread(upload.drop))

    async def read(self, key: str) -> AsyncIterator[bytes]:
        path = self.path(key)
        with _translated(key):
            try:
                async with aiofiles.open(path, "rb", buffering=0) as file:
                    while block := await to_its_end(file.read(BLOCK)):
                        yield block
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None

    async def size(self, key: str) -> int | None:
        path = self.path(key)
        with _translated(key):
            try:
                found = await asyncio.to_thread(path.stat)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        path = self._part_path(key, part)
        with _translated(key):
            try:
                await asyncio.to_thread(path.unlink)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    async def check(self) -> str:
        probe = f".check-{secrets.token_hex(8)}"
        payload = secrets.token_bytes(64)
        for path in list(self._stuck):
            # Whether the store works, the probe alone decides: the folder of such a part may be gone for good.
            with suppress(OSError):
                await asyncio.to_thread(self.remove, path)
        try:
            try:
                async with self.upload(probe, part=f"{probe}.part") as upload:
                    await upload.write(payload)
                    await upload.save()
            except StoreError as error:
                what = error.message.removeprefix(f"{probe} cannot be kept: ")
                raise StoreUnavailable(f"{self.root} cannot be written: {what}", hint=error.hint, **error.facts) from None
            found = b"".join([block async for block in self.read(probe)])
        finally:
            with _translated(probe):
                await to_its_end(asyncio.to_thread(self.path(probe).unlink, missing_ok=True))
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def free(self) -> int:
        with _translated(str(self.root)):
            return (await asyncio.to_thread(shutil.disk_usage, self.root)).free

    async def advice(self) -> list[Advice]:
        return []

    def remove(self, part: Path) -> None:
        """Remove a temporary file of ours; blocks. One that cannot be, because its folder went away under it, is tried again by
        the next `check`.
        """
        try:
            part.unlink()
        except OSError as error:
            # Gone alone: another worker swept it, having seen this one's lease run out.
            if not (isinstance(error, FileNotFoundError) and part.parent.is_dir()):
                self._stuck.add(part)
                raise
        self._stuck.discard(part)

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents durable; blocks. A folder is not until the one above it is synced: one that this process
        does not know yet may have been made a moment ago, by another, which has not come to that.
        """
        if self._seen and not self.root.is_dir():
            # It was there: a drive has dropped out. Made again, it would hide what lies on that drive.
            raise FileNotFoundError(errno.ENOENT, "the folder of storage.url is gone")
        for path in (*reversed(folder.parents), folder):
            if path.is_dir() and (path in self._known_folders or self.root not in path.parents):
                continue
            path.mkdir(exist_ok=True)
            _sync_folder(path.parent)
            if len(self._known_folders) >= KNOWN_FOLDERS:
                self._known_folders.clear()
            self._known_folders.add(path)
        self._seen = True


def _encodable(key: str) -> bool:
    try:
        return bool(key.encode())
    except UnicodeEncodeError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    """Turn what the system says into errors of ours."""
    try:
        yield
    except OSError as error:
        kind = StoreError if error.errno in _OF_ONE_KEY else StoreUnavailable
        raise kind(
            f"{key} cannot be kept: {error.strerror or error}",
            hint=_HINTS.get(error.errno or 0, "check the disk and the folder of storage.url"),
            store_key=key,
            error=errno.errorcode.get(error.errno or 0, type(error).__name__),
        ) from None
