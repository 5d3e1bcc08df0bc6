"""Recordings in a folder: temporary file in the target's folder -> write and hash -> fsync -> link -> fsync the folder.

The last step is `link`, not `rename`: a rename overwrites, a link does not.

The loop does none of it. A large file goes to a thread a block at a time, where it is hashed and written in one hop; a small one
goes there once, whole. What is durable costs a commit of the file system's journal, and one commit serves all that wait for it:
files that end within the same moment are taken through their last steps together (`_Finisher`).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiofiles
from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.buffers import Buffers, Reservation
from archiver.cancellation import to_its_end
from archiver.errors import KeyConflict, LeaseLost, StoreError, StoreUnavailable
from archiver.stores import Advice, Saved, check_key, check_part

BLOCK = 1024 * 1024
"""Bytes collected before they go to the disk: a hop to a thread costs as much as writing many kilobytes."""

THREADS = 32
"""What waits for a disk waits side by side: on two cores, Python's own pool would have six of them."""

ALONE = 4 * 1024 * 1024
"""A file longer than this is made durable by itself, before its last steps are taken together with others'."""

BATCH = 64
"""So many files are taken through their last steps together, at most."""

T = TypeVar("T")
E = TypeVar("E", bound=StoreError)

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

MOST_PIECES = 1000
"""So many pieces are written at once, at most: the system takes 1,024."""

KNOWN_FOLDERS = 4096

_Pieces = list[bytes]


class _Part:
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

    def writelines(self, pieces: _Pieces) -> None:
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
def _(file: _Part, *, loop: asyncio.AbstractEventLoop | None = None, executor: ThreadPoolExecutor | None = None) -> AsyncFileIO:
    return AsyncFileIO(file, loop=loop, executor=executor)  # type: ignore[arg-type]  # what it calls, a _Part has


class _LocalUpload:
    def __init__(self, store: LocalStore, key: str, part: str, reservation: Reservation) -> None:
        self.store = store
        self.part = part
        self._key = key
        self._reservation = reservation
        self._pieces: _Pieces = []
        self._held = 0
        self._room = BLOCK
        self._file: _Part | None = None
        self._async_file: AsyncFileIO | None = None
        self._over = False

    def expect(self, length: int) -> None:
        self._reservation.shrink(min(length, BLOCK))
        if length <= BLOCK:
            # It reaches the disk in the last hop, whole; what comes beyond that does not wait for it.
            self._room = length + 1

    async def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held += len(data)
        if self._held >= self._room or len(self._pieces) >= MOST_PIECES:
            pieces = self._take()
            with _translated(self._key):
                if self._async_file is None:
                    await self.store.hop(self._begin_with, pieces)
                else:
                    # To its end: a file must not be closed under a running write, its number may by then be another file's.
                    await to_its_end(self._async_file.writelines(pieces))

    def _take(self) -> _Pieces:
        pieces, self._pieces, self._held = self._pieces, [], 0
        return pieces

    def _begin_with(self, pieces: _Pieces) -> None:
        file = self.create()
        self._async_file = wrap(file, executor=self.store.threads)
        file.writelines(pieces)

    def create(self) -> _Part:
        """The temporary file, made if need be; blocks."""
        if self._file is None:
            if self._over:
                raise StoreError(f"{self._key}: this upload is over", store_key=self._key)
            # What could not be begun cannot be saved: what was to be written first may be lost.
            self._over = True
            self._file = self.store.in_its_folder(self.part, _Part)
            self._over = False
            self.store.seen = True
        return self._file

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        self.store.name(key)
        ending = _Ending(self, key, guard, self._take())
        with _translated(key):
            if self._file is not None and self._file.length > ALONE:
                # It may take the disk a while, and no other file is to wait for that.
                await self.store.hop(ending.write_and_sync)
            saved = await to_its_end(self.store.finisher.finish(ending))
            return saved if saved is not None else await self.store.hop(ending.compare)

    async def leave(self) -> None:
        """Remove the temporary file, if there is one (still)."""
        if self._file is not None:
            with _translated(self._key):
                await self.store.hop(self.drop)

    def drop(self) -> None:
        """The same; blocks."""
        assert self._file is not None
        file, self._file, self._over = self._file, None, True
        with suppress(OSError):
            file.close()
        self.store.remove(self.part)


class _Ending:
    """The last steps of one file, each of which blocks. One that fails is the end of this file; the others of its batch go on."""

    def __init__(self, upload: _LocalUpload, key: str, guard: Callable[[], None] | None, pieces: _Pieces) -> None:
        self.done: asyncio.Future[Saved | None] = asyncio.get_running_loop().create_future()
        self.saved: Saved | None = None
        self.error: BaseException | None = None
        self.folders: list[str] = []
        self._upload = upload
        self._key = key
        self._guard = guard
        self._pieces = pieces
        self._synced = False

    def write(self) -> None:
        """Write what the loop still held."""
        file = self._upload.create()
        if self._pieces:
            file.writelines(self._pieces)
            self._pieces = []

    def start_sync(self) -> None:
        """Have the disk begin: by the time that the first file of a batch is durable, the others are on their way."""
        if not self._synced:
            with suppress(OSError):  # advice, which not every file system takes
                os.posix_fadvise(self._upload.create().fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Make the file durable, whole."""
        if self._synced:
            return
        file = self._upload.create()
        os.fsync(file.fileno())
        if file.written != file.length:
            raise StoreUnavailable(f"{self._key}: wrote {file.written} of {file.length} bytes", store_key=self._key)
        self._synced = True

    def write_and_sync(self) -> None:
        """Both at once, for a file that is too large to be waited for by others."""
        self.write()
        self.sync()

    def link(self) -> None:
        """Let the file appear under its key, unless something is there. Then nothing is `saved`, and `compare` is next."""
        store, file = self._upload.store, self._upload.create()
        target = store.name(self._key)

        def link(to: str) -> None:
            if self._guard is not None:
                self._guard()
            os.link(self._upload.part, to, follow_symlinks=False)

        try:
            store.in_its_folder(target, link)
        except FileExistsError:
            return
        # The link is not durable until its folder is, nor that one until the folder above it.
        self.folders = store.unsynced(os.path.dirname(target))
        self.saved = Saved(self._key, file.length, file.sha256.hexdigest())
        self._upload.drop()

    def compare(self) -> Saved:
        """Hold the file against the one that has its key. Raises KeyConflict."""
        store, file = self._upload.store, self._upload.create()
        digest = file.sha256.hexdigest()
        target = Path(store.name(self._key))
        if target.is_symlink() or not target.is_file():
            raise StoreError(f"{self._key} exists and is not a plain file", hint="move it away", store_key=self._key)
        with target.open("rb") as there:
            stored = hashlib.file_digest(there, "sha256").hexdigest()
            size = os.fstat(there.fileno()).st_size
            os.fsync(there.fileno())
        if stored != digest:
            raise KeyConflict(self._key, stored_sha256=stored, stored_bytes=size, sha256=digest, size=file.length)
        # It may have been linked by a worker that died before this.
        for folder in store.unsynced(os.path.dirname(str(target))):
            _sync_folder(folder)
        return Saved(self._key, size, digest, existed=True)


class _Finisher:
    """Takes files through their last steps: one batch at a time, those that come meanwhile are the next. Several at once would
    only part them: each waits for the same journal, and for the interpreter's lock with every call.
    """

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._waiting: list[_Ending] = []
        self._running = False

    def finish(self, ending: _Ending) -> asyncio.Future[Saved | None]:
        """What was saved, durable; None if there is something under the key."""
        self._waiting.append(ending)
        self._start()
        return ending.done

    def _start(self) -> None:
        while self._waiting and not self._running:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                job = asyncio.get_running_loop().run_in_executor(self._store.threads, self._finish_all, batch)
            except RuntimeError as error:
                # No thread to be had, or the store is closed. Whoever waits must be told: nobody else is going to.
                self._tell(batch, error)
            else:
                self._running = True
                job.add_done_callback(partial(self._finished, batch))

    def _finished(self, batch: list[_Ending], job: asyncio.Future[None]) -> None:
        self._running = False
        self._tell(batch, job.exception())
        self._start()

    @staticmethod
    def _tell(batch: list[_Ending], failure: BaseException | None) -> None:
        for ending in batch:
            error = ending.error or failure
            if error is None:
                ending.done.set_result(ending.saved)
            elif isinstance(error, OSError | StoreError | LeaseLost):
                ending.done.set_exception(error)
            else:
                ending.done.set_exception(StoreUnavailable(f"a file could not be finished: {error!r}"))

    def _finish_all(self, batch: list[_Ending]) -> None:
        """In the order that spares the disk most: everything is written before the first file is waited for. Blocks."""
        for step in (_Ending.write, _Ending.start_sync, _Ending.sync, _Ending.link):
            for ending in batch:
                if ending.error is None:
                    try:
                        step(ending)
                    except BaseException as error:  # noqa: BLE001  # it is told to whom it concerns, and to nobody else
                        ending.error = error
        synced: dict[str, StoreUnavailable | None] = {}
        for ending in batch:
            for folder in ending.folders:
                if folder not in synced:
                    synced[folder] = self._sync(folder)
                ending.error = ending.error or synced[folder]
            if ending.error is None:
                self._store.know(ending.folders)

    @staticmethod
    def _sync(folder: str) -> StoreUnavailable | None:
        try:
            _sync_folder(folder)
        except OSError as error:
            # Whatever it says, it is not the fault of one file.
            return _told(error, folder, StoreUnavailable)
        return None


class LocalStore:
    """A `file://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, root: Path, buffers: Buffers) -> None:
        self.root = root
        self._prefix = f"{str(root).rstrip('/')}/"
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self.finisher = _Finisher(self)
        self._buffers = buffers
        self._known_folders: set[str] = set()
        self._stuck: set[str] = set()
        self.seen = False

    def close(self) -> None:
        """End the threads, once they are through: not awaited here, as a disk that hangs must not hang the loop."""
        self.threads.shutdown(wait=False)

    async def hop(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` in a thread, to its end."""
        return await to_its_end(asyncio.get_running_loop().run_in_executor(self.threads, work, *args))

    def name(self, key: str) -> str:
        """The file of a key. Raises StoreError for a key that could leave the root."""
        check_key(key)
        return f"{self._prefix}{key}"

    def _part_name(self, key: str, part: str) -> str:
        check_part(key, part)
        return f"{os.path.dirname(self.name(key))}/{part}"

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[_LocalUpload]:
        path = self._part_name(key, part)
        async with self._buffers.reserve(BLOCK) as reservation:
            upload = _LocalUpload(self, key, path, reservation)
            try:
                yield upload
            except BaseException:
                with suppress(StoreError):  # what goes on already says more; the part is tried again by the next `check`
                    await upload.leave()
                raise
            await upload.leave()

    async def read(self, key: str) -> AsyncIterator[bytes]:
        path = self.name(key)
        with _translated(key):
            try:
                async with aiofiles.open(path, "rb", buffering=0, executor=self.threads) as file:
                    while block := await to_its_end(file.read(BLOCK)):
                        yield block
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None

    async def size(self, key: str) -> int | None:
        path = self.name(key)
        with _translated(key):
            try:
                found = await self.hop(os.stat, path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        # Its name tells whose it is, so that its age does not matter.
        path = self._part_name(key, part)
        with _translated(key):
            try:
                await self.hop(os.unlink, path)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    async def check(self) -> str:
        probe = f".check-{secrets.token_hex(8)}"
        payload = secrets.token_bytes(64)
        for path in list(self._stuck):
            # Whether the store works, the probe alone decides: the folder of such a part may be gone for good.
            with suppress(OSError):
                await self.hop(self.remove, path)
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
                await self.hop(partial(Path(self.name(probe)).unlink, missing_ok=True))
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def free(self) -> int:
        with _translated(str(self.root)):
            return (await self.hop(shutil.disk_usage, self.root)).free

    async def advice(self) -> list[Advice]:
        return []

    def remove(self, part: str) -> None:
        """Remove a temporary file of ours; blocks. One that cannot be, because its folder went away under it, is tried again by
        the next `check`.
        """
        try:
            os.unlink(part)
        except OSError as error:
            # Gone alone: another worker swept it, having seen this one's lease run out.
            if not (isinstance(error, FileNotFoundError) and os.path.isdir(os.path.dirname(part))):
                self._stuck.add(part)
                raise
        self._stuck.discard(part)

    def make_folder(self, folder: str) -> None:
        """Make a folder and those above it, as far as they are not known; blocks. It is not durable before its `unsynced` ones
        are synced.
        """
        for missing in reversed(self.unsynced(folder)[:-1]):
            try:
                os.mkdir(missing)
            except FileExistsError:
                continue
            except FileNotFoundError:
                # What was known has been removed, or there is no root yet.
                self._make_from_root(missing)

    def _make_from_root(self, folder: str) -> None:
        self._known_folders.clear()
        root = str(self.root)
        if self.seen and not os.path.isdir(root):
            # It was there: a drive has dropped out. Made again, it would hide what lies on that drive.
            raise FileNotFoundError(errno.ENOENT, "the folder of storage.url is gone")
        above = [folder]
        while not os.path.isdir(above[-1]):
            above.append(os.path.dirname(above[-1]))
        for missing in reversed(above[:-1]):
            with suppress(FileExistsError):
                os.mkdir(missing)
            if len(missing) <= len(root):
                _sync_folder(os.path.dirname(missing))

    def in_its_folder(self, path: str, make: Callable[[str], T]) -> T:
        """Make something in a folder, which is made first if need be, and again if it was removed meanwhile; blocks."""
        folder = os.path.dirname(path)
        self.make_folder(folder)
        try:
            return make(path)
        except FileNotFoundError:
            self._make_from_root(folder)
            return make(path)

    def unsynced(self, folder: str) -> list[str]:
        """The folders to sync for what was put into `folder` to be durable: itself, and those above it as far as this process
        does not know that they are. One that it does not know may have been made a moment ago, by another, which has not come
        to that.
        """
        found = [folder]
        while folder not in self._known_folders and folder != str(self.root):
            folder = os.path.dirname(folder)
            found.append(folder)
        return found

    def know(self, synced: list[str]) -> None:
        """What `unsynced` named is synced: all but the last one of them are durable with all that is above."""
        if len(self._known_folders) >= KNOWN_FOLDERS:
            self._known_folders.clear()
        self._known_folders.update(synced[:-1])


def _sync_folder(folder: str) -> None:
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
        raise _told(error, key, StoreError if error.errno in _OF_ONE_KEY else StoreUnavailable) from None


def _told(error: OSError, key: str, kind: type[E]) -> E:
    return kind(
        f"{key} cannot be kept: {error.strerror or error}",
        hint=_HINTS.get(error.errno or 0, "check the disk and the folder of storage.url"),
        store_key=key,
        error=errno.errorcode.get(error.errno or 0, type(error).__name__),
    )
