"""Recordings in a folder: temporary file in the target's folder -> write and hash -> fsync -> link -> fsync the folder.

The last step is `link`, not `rename`: a rename overwrites, a link does not.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import aiofiles

from archiver.buffers import Buffers
from archiver.cancellation import to_its_end
from archiver.errors import StoreError, StoreUnavailable
from archiver.stores import Advice, check_key, check_part
from archiver.stores.local_disk import sync_folder, translated
from archiver.stores.local_upload import BLOCK, Finisher, LocalUpload

THREADS = 32
"""What waits for a disk waits side by side: on two cores, Python's own pool would have six of them."""

KNOWN_FOLDERS = 4096

T = TypeVar("T")


class LocalStore:
    """A `file://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, root: Path, buffers: Buffers) -> None:
        self.root = root
        self._prefix = f"{str(root).rstrip('/')}/"
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self.finisher = Finisher(self)
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
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[LocalUpload]:
        path = self._part_name(key, part)
        async with self._buffers.reserve(BLOCK) as reservation:
            upload = LocalUpload(self, key, path, reservation)
            try:
                yield upload
            except BaseException:
                with suppress(StoreError):  # what goes on already says more; the part is tried again by the next `check`
                    await upload.leave()
                raise
            await upload.leave()

    async def read(self, key: str) -> AsyncIterator[bytes]:
        path = self.name(key)
        with translated(key):
            try:
                async with aiofiles.open(path, "rb", buffering=0, executor=self.threads) as file:
                    while block := await to_its_end(file.read(BLOCK)):
                        yield block
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None

    async def size(self, key: str) -> int | None:
        path = self.name(key)
        with translated(key):
            try:
                found = await self.hop(os.stat, path)
            except (FileNotFoundError, NotADirectoryError):
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        # Its name tells whose it is, so that its age does not matter.
        path = self._part_name(key, part)
        with translated(key):
            try:
                await self.hop(os.unlink, path)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    async def check(self) -> str:
        probe = f".check-{secrets.token_hex(8)}"
        payload = secrets.token_bytes(64)
        await self._tidy()  # what fills a disk goes first
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
            with translated(probe):
                await self.hop(partial(Path(self.name(probe)).unlink, missing_ok=True))
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        await self._tidy()  # a drive may have come back in between, and a store that works is not checked again
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def _tidy(self) -> None:
        """Remove the parts that could not be removed. Whether the store works, the probe alone decides: the folder of such a part
        may be gone for good.
        """
        for path in list(self._stuck):
            with suppress(OSError):
                await self.hop(self.remove, path)

    async def free(self) -> int:
        with translated(str(self.root)):
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
                sync_folder(os.path.dirname(missing))

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
