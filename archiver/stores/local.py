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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import aiofiles
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.stores import Saved

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
}


class _HashingFile(io.FileIO):
    """Hashes what it writes, in the same hop to a thread."""

    def __init__(self, path: Path) -> None:
        super().__init__(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640), "wb")
        self.sha256 = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes | bytearray, /) -> int:  # type: ignore[override]  # bytes are all that comes here
        self.sha256.update(data)
        view = memoryview(data)
        while view:
            view = view[super().write(view) or 0 :]
        self.length += len(data)
        return len(data)


async def _whole(work: Awaitable[T]) -> T:
    """Await work that runs in a thread, to its end even when cancelled: a file must not be closed under a running write, since
    its number may by then be another file's.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class _LocalUpload:
    def __init__(self, store: LocalStore, key: str, part: Path, raw: _HashingFile) -> None:
        self._store = store
        self._key = key
        self._part = part
        self._raw = raw
        self._file: AsyncFileIO = wrap(raw)
        self._buffer = bytearray()

    async def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= BLOCK:
            await self._flush()

    async def _flush(self) -> None:
        if self._buffer:
            block, self._buffer = self._buffer, bytearray()
            try:
                await _whole(self._file.write(block))
            except OSError as error:
                raise _unavailable(self._key, error) from None

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        await self._flush()
        return await _whole(asyncio.to_thread(self._commit, key, guard))

    def _commit(self, key: str, guard: Callable[[], None] | None) -> Saved:
        target = self._store.path(key)
        digest = self._raw.sha256.hexdigest()
        try:
            os.fsync(self._raw.fileno())
            written = os.fstat(self._raw.fileno()).st_size
            if written != self._raw.length:
                raise StoreUnavailable(f"{key}: wrote {self._raw.length} bytes, the file has {written}", store_key=key)
            _make_folder(target.parent)
            if guard is not None:
                guard()
            try:
                target.hardlink_to(self._part)
            except FileExistsError:
                return self._compare(key, target, digest)
            # The link is not durable until its folder is.
            _sync_folder(target.parent)
        except OSError as error:
            raise _unavailable(key, error) from None
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

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """The file of a key. Raises StoreError for a key that could leave the root."""
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
            raise StoreError(f"{key!r} is not a key of this store", store_key=key)
        return self.root.joinpath(*parts)

    @asynccontextmanager
    async def upload(self, key: str, *, part: str) -> AsyncIterator[_LocalUpload]:
        path = self.path(key).with_name(part)
        try:
            raw = await _whole(asyncio.to_thread(_create, path))
        except OSError as error:
            raise _unavailable(key, error) from None
        try:
            yield _LocalUpload(self, key, path, raw)
        finally:
            await _whole(asyncio.to_thread(_drop, raw, path))

    async def read(self, key: str) -> AsyncIterator[bytes]:
        try:
            async with aiofiles.open(self.path(key), "rb", buffering=0) as file:
                while block := await file.read(BLOCK):
                    yield block
        except FileNotFoundError:
            raise StoreError(f"{key} is missing", store_key=key, missing=True) from None
        except OSError as error:
            raise _unavailable(key, error) from None

    async def size(self, key: str) -> int | None:
        try:
            return (await asyncio.to_thread(self.path(key).stat)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _unavailable(key, error) from None

    async def discard(self, key: str, *, part: str) -> bool:
        if not (part.startswith(".") and part.endswith(".part")):
            raise StoreError(f"{part!r} is not a temporary name", store_key=key)
        try:
            await asyncio.to_thread(self.path(key).with_name(part).unlink)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unavailable(key, error) from None
        return True

    async def check(self) -> str:
        probe = f".check-{secrets.token_hex(8)}"
        payload = secrets.token_bytes(64)
        async with self.upload(f"{probe}", part=f"{probe}.part") as upload:
            await upload.write(payload)
            await upload.save()
        try:
            found = b"".join([block async for block in self.read(probe)])
        finally:
            await asyncio.to_thread(self.path(probe).unlink)
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def free(self) -> int:
        return (await asyncio.to_thread(shutil.disk_usage, self.root)).free


def _create(path: Path) -> _HashingFile:
    _make_folder(path.parent)
    return _HashingFile(path)


def _drop(raw: _HashingFile, path: Path) -> None:
    raw.close()
    # Gone already when another worker swept it, having seen this one's lease run out.
    with suppress(FileNotFoundError):
        path.unlink()


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents durable: a new folder is not until the one above it is synced."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(key: str, error: OSError) -> StoreUnavailable:
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return StoreUnavailable(
        f"{key} cannot be kept: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "check the disk and the folder of storage.url"),
        store_key=key,
        error=name,
    )
