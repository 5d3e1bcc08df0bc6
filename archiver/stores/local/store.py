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
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from archiver.errors import StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.runtime.cancellation import to_its_end
from archiver.stores import Advice, check_key, check_part
from archiver.stores.local.disk import BLOCK, NotRegular, kind_of, names_in, open_regular, told, translated
from archiver.stores.local.folders import Folders
from archiver.stores.local.upload import Finisher, LocalUpload

THREADS = 32
"""What waits for a disk waits side by side: on two cores, Python's own pool would have six of them."""

T = TypeVar("T")


def _beginning_of(part: str) -> str:
    """What the names of a claim's temporary files have in common, with the dot that ends it."""
    return part.removesuffix("part")


def _irregular(key: str, kind: str) -> StoreError:
    return StoreError(f"{key} is {kind}, not a regular file", hint="who writes there?", store_key=key, not_a_regular_file=True)


class LocalStore:
    """A `file://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, root: Path, buffers: Buffers) -> None:
        self.root = root
        self.folders = Folders(root)
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self.finisher = Finisher(self)
        self._buffers = buffers
        self._stuck: set[tuple[str, str]] = set()

    def close(self) -> None:
        """End the threads, once they are through: not awaited here, as a disk that hangs must not hang the loop."""
        self.threads.shutdown(wait=False)

    async def hop(self, work: Callable[..., T], *args: object) -> T:
        """Do `work` in a thread, to its end."""
        return await to_its_end(asyncio.get_running_loop().run_in_executor(self.threads, work, *args))

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[LocalUpload]:
        check_key(key)
        check_part(key, part)
        # Whoever can foresee a name can take it first, and nothing would ever be kept there again.
        name = f"{_beginning_of(part)}{secrets.token_hex(8)}.part"
        async with self._buffers.reserve(BLOCK) as reservation:
            upload = LocalUpload(self, key, name, reservation)
            try:
                yield upload
            except BaseException:
                with suppress(StoreError):  # what goes on already says more; the part is tried again by the next `check`
                    await upload.leave()
                raise
            await upload.leave()

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        check_key(key)
        with translated(key, "read"), ExitStack() as closed:
            try:
                file = await self.hop(self._open, key, closed)
            except (FileNotFoundError, NotADirectoryError):
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None
            while block := await self.hop(os.read, file, BLOCK):
                yield block

    def _open(self, key: str, closed: ExitStack) -> int:
        folder, name = os.path.split(key)
        with self.folders.opened(folder) as opened:
            try:
                file = open_regular(name, opened)
            except NotRegular as error:
                raise _irregular(key, str(error)) from None
        closed.callback(os.close, file)
        return file

    async def size(self, key: str) -> int | None:
        check_key(key)
        with translated(key, "read"):
            try:
                found = await self.hop(self._stat, key)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise _irregular(key, kind_of(found.st_mode))
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _stat(self, key: str) -> os.stat_result:
        folder, name = os.path.split(key)
        with self.folders.opened(folder) as opened:
            return os.stat(name, dir_fd=opened, follow_symlinks=False)

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        # Its name tells whose it is, so that its age does not matter.
        check_key(key)
        check_part(key, part)
        with translated(key, "discarded"):
            try:
                return await self.hop(self._discard, os.path.dirname(key), part)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def _discard(self, folder: str, part: str) -> bool:
        found = False
        beginning = _beginning_of(part)
        with self.folders.opened(folder) as opened:
            for name in names_in(opened):
                if not (name.startswith(beginning) and name.endswith(".part")):
                    continue
                with suppress(FileNotFoundError):  # another worker sweeps as well
                    if stat.S_ISREG(os.stat(name, dir_fd=opened, follow_symlinks=False).st_mode):
                        os.unlink(name, dir_fd=opened)
                        found = True
        return found

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
            try:
                await self.hop(os.unlink, f"{self.root}/{probe}")
            except OSError as error:
                if error.errno not in (
                    errno.ENOENT,
                    errno.ENOTDIR,
                    errno.EROFS,
                ):  # else there is nothing of ours, and why, is said
                    raise told(error, probe, StoreUnavailable) from None
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        await self._tidy()  # a drive may have come back in between, and a store that works is not checked again
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def _tidy(self) -> None:
        """Remove the parts that could not be removed. Whether the store works, the probe alone decides: the folder of such a part
        may be gone for good.
        """
        for folder, part in list(self._stuck):
            with suppress(OSError):
                await self.hop(self._remove_again, folder, part)

    def _remove_again(self, folder: str, part: str) -> None:
        with self.folders.opened(folder) as opened:
            self.remove(folder, part, opened)

    async def free(self) -> int:
        with translated(str(self.root)):
            return (await self.hop(shutil.disk_usage, self.root)).free

    async def advice(self) -> list[Advice]:
        with translated(str(self.root), "looked at"):
            return await self.hop(self.folders.advise)

    def remove(self, folder: str, part: str, opened: int) -> None:
        """Remove a temporary file of ours from a folder, of which `opened` is the descriptor; blocks. One that cannot be, because
        its drive went away under it, is tried again by the next `check`.
        """
        try:
            # Gone: another worker swept it, having seen this one's lease run out, or its folder was removed.
            with suppress(FileNotFoundError):
                os.unlink(part, dir_fd=opened)
        except OSError:
            self._stuck.add((folder, part))
            raise
        self._stuck.discard((folder, part))
