"""One recording on its way into a folder, and the last steps that it takes together with others.

The loop does none of it. A large file goes to a thread a block at a time, where it is hashed and written in one hop; a small one
goes there once, whole. What is durable costs a commit of the file system's journal, and one commit serves all that wait for it:
files that end within the same moment are taken through their last steps together (`Finisher`).
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from aiofiles.threadpool import wrap
from aiofiles.threadpool.binary import AsyncFileIO

from archiver.errors import KeyConflict, LeaseLost, StoreError, StoreUnavailable
from archiver.runtime.buffers import Reservation
from archiver.runtime.cancellation import to_its_end
from archiver.stores import MARKER, MAX_COMPARED, Saved, check_key
from archiver.stores.local.disk import (
    BLOCK,
    MAX_PIECES,
    NotRegular,
    Part,
    Pieces,
    copied,
    hash_of,
    link_new,
    open_regular,
    store_error_of,
    sync_folder,
    sync_opened,
    translated,
)
from archiver.stores.local.folders import Folders, Shared
from archiver.stores.local.threads import Threads

ALONE = 4 * 1024 * 1024
"""A file longer than this is made durable by itself, before its last steps are taken together with others'."""

BATCH = 64
"""So many files are taken through their last steps together, at most."""


class LocalUpload:
    """See `archiver.stores.Upload`."""

    def __init__(
        self, folders: Folders, threads: Threads, finisher: Finisher, key: str, part: str, reservation: Reservation
    ) -> None:
        self.folders = folders
        self._threads = threads
        self._finisher = finisher
        self.folder = os.path.dirname(key)
        self._part = part
        self._key = key
        self._reservation = reservation
        self._pieces: Pieces = []
        self._held = 0
        self._room = BLOCK
        self._file: Part | None = None
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
        if self._held >= self._room or len(self._pieces) >= MAX_PIECES:
            pieces = self._take()
            with translated(self._key):
                if self._async_file is None:
                    await self._threads.run(self._begin_with, pieces)
                else:
                    # To its end: a file must not be closed under a running write, its number may by then be another file's.
                    await to_its_end(self._async_file.writelines(pieces))

    def _take(self) -> Pieces:
        pieces, self._pieces, self._held = self._pieces, [], 0
        return pieces

    def _begin_with(self, pieces: Pieces) -> None:
        file = self.create()
        self._async_file = wrap(file, executor=self._threads.pool)
        file.writelines(pieces)

    def create(self, shared: Shared | None = None) -> Part:
        """The temporary file, made if need be; blocks. `shared`: see `Folders.make_in`."""
        if self._file is None:
            if self._over:
                raise StoreError(f"{self._key}: this upload is over", store_key=self._key)
            # What could not be begun cannot be saved: what was to be written first may be lost.
            self._over = True
            mode = 0o644 if self._key == MARKER else 0o640  # workers of every account read whose store it is
            _, file = self.folders.make_in(self.folder, partial(Part, self._part, mode=mode), shared)
            self._file = file
            self._over = False
        return self._file

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        key = key or self._key
        check_key(key)
        ending = Ending(self, key, guard, self._take())
        with translated(key):
            if self._file is not None and self._file.length > ALONE:
                # It may take the disk a while, and no other file is to wait for that.
                await self._threads.run(ending.write_and_sync)
            saved = await to_its_end(self._finisher.finish(ending))
            return saved if saved is not None else await self._threads.run(ending.compare)

    async def leave(self) -> None:
        """Remove the temporary file, if there is one (still)."""
        if self._file is not None:
            with translated(self._key):
                await self._threads.run(self.drop)

    def drop(self) -> None:
        """The same; blocks."""
        os.close(self.let_go())

    def let_go(self) -> int:
        """The same, but for the descriptor of its folder, which is the caller's to close."""
        assert self._file is not None
        file, self._file, self._over = self._file, None, True
        with suppress(OSError):
            file.close()
        try:
            self.folders.remove_part(self.folder, file.name, file.folder)
        except BaseException:
            os.close(file.folder)
            raise
        return file.folder


class Ending:
    """The last steps of one file, each of which blocks. One that fails is the end of this file; the others of its batch go on."""

    def __init__(self, upload: LocalUpload, key: str, guard: Callable[[], None] | None, pieces: Pieces) -> None:
        self.done: asyncio.Future[Saved | None] = asyncio.get_running_loop().create_future()
        self.saved: Saved | None = None
        self.error: BaseException | None = None
        self.folders: list[str] = []
        self.folder: int | None = None
        """The first of these folders, open."""
        self._upload = upload
        self._key = key
        self._guard = guard
        self._pieces = pieces
        self._synced = False

    def write(self, shared: Shared | None = None) -> None:
        """Write what the loop still held."""
        file = self._upload.create(shared)
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
        folders, file = self._upload.folders, self._upload.create()
        folder, name = os.path.split(self._key)

        def link(target: int) -> None:
            if self._guard is not None:
                self._guard()
            try:
                link_new(file.name, name, source_folder=file.folder, folder=target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._link_a_copy(file, name, target)  # quarantine/ may be a disk of its own

        try:
            if folder == self._upload.folder and folders.leads_to(folder, file.folder):
                link(file.folder)
                self.folder = self._upload.let_go()
            else:
                self.folder, _ = folders.make_in(folder, link)
                self._upload.drop()
        except FileExistsError:
            return
        # The link is not durable until its folder is, nor that one until the folder above it.
        self.folders = folders.unsynced(folder)
        self.saved = Saved(self._key, file.length, file.sha256.hexdigest())

    def _link_a_copy(self, file: Part, name: str, target: int) -> None:
        copy = copied(file, target)
        try:
            if self._guard is not None:
                self._guard()
            link_new(f"/proc/self/fd/{copy}", name, source_folder=None, folder=target)
        finally:
            os.close(copy)

    def compare(self) -> Saved:
        """Hold the file against what has its key. Raises KeyConflict."""
        folders = self._upload.folders
        folder, name = os.path.split(self._key)
        with folders.opened(folder) as opened:
            saved = self._compare_with(name, opened)
            # It may have been linked by a worker that died before this.
            for number, _ in enumerate(folders.unsynced(folder)):
                sync_folder(_above(number), opened)
        return saved

    def _compare_with(self, name: str, folder: int) -> Saved:
        ours = self._upload.create()
        sha256 = ours.sha256.hexdigest()
        conflict = partial(KeyConflict, self._key, sha256=sha256, size=ours.length)
        try:
            there = open_regular(name, folder)
        except NotRegular as error:
            raise conflict(stored_sha256=None, stored_bytes=None, stored=str(error)) from None
        except (PermissionError, BlockingIOError):  # the latter: another program holds it for itself
            raise conflict(stored_sha256=None, stored_bytes=None, stored="a file that cannot be read") from None
        try:
            stored = hash_of(there, max(ours.length, MAX_COMPARED))
            size = os.fstat(there).st_size
            if stored != sha256:
                raise conflict(stored_sha256=stored, stored_bytes=size)
            os.fsync(there)
        finally:
            os.close(there)
        return Saved(self._key, size, sha256, existed=True)

    def close(self) -> None:
        """Let go of the folder."""
        if self.folder is not None:
            os.close(self.folder)
            self.folder = None


def _above(number: int) -> str:
    """The folder so many above another, seen from that: no name of theirs is needed, which others could change."""
    return "/".join([".."] * number) or "."


class Finisher:
    """Takes files through their last steps: one batch at a time, those that come meanwhile are the next. Several at once would
    only part them: each waits for the same journal, and for the interpreter's lock with every call.
    """

    def __init__(self, folders: Folders, threads: Threads) -> None:
        self._folders = folders
        self._threads = threads
        self._waiting: list[Ending] = []
        self._running = False

    def finish(self, ending: Ending) -> asyncio.Future[Saved | None]:
        """What was saved, durable; None if there is something under the key."""
        if not self._waiting and not self._running:
            # Those that end in the same turn of the loop go together: a hop to a thread costs a part of a small file's time.
            asyncio.get_running_loop().call_soon(self._start)
        self._waiting.append(ending)
        return ending.done

    def _start(self) -> None:
        while self._waiting and not self._running:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                job = asyncio.get_running_loop().run_in_executor(self._threads.pool, self._finish_all, batch)
            except RuntimeError as error:
                # No thread to be had, or the store is closed. Whoever waits must be told: nobody else is going to.
                self._resolve(batch, error)
            else:
                self._running = True
                job.add_done_callback(partial(self._finished, batch))

    def _finished(self, batch: list[Ending], job: asyncio.Future[None]) -> None:
        self._running = False
        self._resolve(batch, job.exception())
        self._start()

    @staticmethod
    def _resolve(batch: list[Ending], failure: BaseException | None) -> None:
        for ending in batch:
            error = ending.error or failure
            if error is None:
                ending.done.set_result(ending.saved)
            elif isinstance(error, OSError | StoreError | LeaseLost):
                ending.done.set_exception(error)
            else:
                ending.done.set_exception(StoreUnavailable(f"a file could not be finished: {type(error).__name__}: {error}"))

    def _finish_all(self, batch: list[Ending]) -> None:
        """In the order that spares the disk most: everything is written before the first file is waited for. Blocks."""
        with Shared() as shared:
            self._each(batch, partial(Ending.write, shared=shared))
        if len(batch) > 1:
            self._each(batch, Ending.start_sync)
        self._each(batch, Ending.sync)
        self._each(batch, Ending.link)
        synced: dict[str, StoreUnavailable | None] = {}
        for ending in batch:
            for number, folder in enumerate(ending.folders):
                if folder not in synced:
                    synced[folder] = self._sync(ending, number)
                ending.error = ending.error or synced[folder]
            ending.close()
            if ending.error is None:
                self._folders.know(ending.folders)

    @staticmethod
    def _each(batch: list[Ending], step: Callable[[Ending], None]) -> None:
        for ending in batch:
            if ending.error is None:
                try:
                    step(ending)
                except BaseException as error:  # noqa: BLE001  # it is told to whom it concerns, and to nobody else
                    ending.error = error

    @staticmethod
    def _sync(ending: Ending, number: int) -> StoreUnavailable | None:
        folder = ending.folders[number]
        try:
            if number or ending.folder is None:
                sync_folder(_above(number), ending.folder)
            else:
                sync_opened(ending.folder)
        except OSError as error:
            # Whatever it says, it is not the fault of one file.
            return store_error_of(error, folder, StoreUnavailable)
        return None
