"""Recordings in a folder: temporary file in the target's folder -> write and hash -> fsync -> link -> fsync the folder.

The last step is `link`, not `rename`: a rename overwrites, a link does not.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

from archiver.errors import StoreError, StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.stores import Advice, AtOnce, Digest, Listed, Pay, check_key, check_part
from archiver.stores.local.disk import BLOCK, NotRegular, kind_of, names_in, open_regular, store_error_of, translated
from archiver.stores.local.folders import Folders
from archiver.stores.local.listing import Listing
from archiver.stores.local.threads import Threads
from archiver.stores.local.upload import Finisher, LocalUpload

STEP = 16 * BLOCK
"""Bytes that are read in one hop to a thread where nobody counts them."""


def _beginning_of(part: str) -> str:
    """What the names of a claim's temporary files have in common, with the dot that ends it."""
    return part.removesuffix("part")


def _missing(key: str) -> StoreError:
    return StoreError(f"{key} is missing", store_key=key, missing=True)


def _irregular(key: str, kind: str) -> StoreError:
    return StoreError(
        f"{key} is {kind}, not a regular file",
        hint="find out who else writes in the folder of storage.url, and move it away",
        store_key=key,
        not_a_regular_file=True,
    )


class LocalStore:
    """A `file://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, root: Path, buffers: Buffers) -> None:
        self.root = root
        self.folders = Folders(root)
        self._threads = Threads()
        self._finisher = Finisher(self.folders, self._threads)
        self._buffers = buffers

    def sharing(self, buffers: Buffers) -> LocalStore:
        shared = copy.copy(self)
        shared._buffers = buffers
        return shared

    def close(self) -> None:
        """End the threads, once they are through: not awaited here, as a disk that hangs must not hang the loop."""
        self._threads.close()

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[LocalUpload]:
        check_key(key)
        check_part(key, part)
        # Whoever can foresee a name can take it first, and nothing would ever be kept there again.
        name = f"{_beginning_of(part)}{secrets.token_hex(8)}.part"
        async with self._buffers.reserve(BLOCK) as reservation:
            upload = LocalUpload(self.folders, self._threads, self._finisher, key, name, reservation)
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
                file = await self._threads.run(self._open, key, closed)
            except (FileNotFoundError, NotADirectoryError):
                raise _missing(key) from None
            while block := await self._threads.run(os.read, file, BLOCK):
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

    async def digests(self, objects: Sequence[tuple[str, int]], pay: Pay | None = None) -> list[Digest | StoreError]:
        found: list[Digest | StoreError] = []
        reading = self._digest(objects, found, STEP if pay is None else BLOCK)
        try:
            while read := await self._threads.run(next, reading, 0):
                if pay is not None:
                    await pay(read)
        finally:
            reading.close()
        return found

    def _digest(
        self, objects: Sequence[tuple[str, int]], found: list[Digest | StoreError], step: int
    ) -> Generator[int, None, None]:
        """Read them, in a thread; yields whenever `step` bytes were read, how many they were: never 0."""
        unpaid = 0
        for key, expected in objects:
            try:
                check_key(key)
                with translated(key, "read"), ExitStack() as closed:
                    try:
                        file = self._open(key, closed)
                    except (FileNotFoundError, NotADirectoryError):
                        raise _missing(key) from None
                    digest, read = hashlib.sha256(), 0
                    while read <= expected and (block := os.read(file, min(BLOCK, expected - read + 1))):
                        digest.update(block)
                        read += len(block)
                        unpaid += len(block)
                        if unpaid >= step:
                            yield unpaid
                            unpaid = 0
                found.append(Digest(read, digest.hexdigest() if read <= expected else None))
            except StoreError as error:
                found.append(error)
        if unpaid:
            yield unpaid

    def at_once(self) -> AtOnce:
        return AtOnce(calls=max(2, len(os.sched_getaffinity(0))), small=32)

    async def size(self, key: str) -> int | None:
        check_key(key)
        with translated(key, "read"):
            try:
                found = await self._threads.run(self._stat, key)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise _irregular(key, kind_of(found.st_mode))
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _stat(self, key: str) -> os.stat_result:
        folder, name = os.path.split(key)
        with self.folders.opened(folder) as opened:
            return os.stat(name, dir_fd=opened, follow_symlinks=False)

    async def list(self, prefix: str = "", *, versions: bool = False) -> AsyncGenerator[Listed, None]:
        listing = Listing(self.folders, prefix)
        try:
            while batch := await self._threads.run(listing.batch):
                for found in batch:
                    yield found
        finally:
            listing.close()

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        # Its name tells whose it is, so that its age does not matter.
        check_key(key)
        check_part(key, part)
        with translated(key, "discarded"):
            try:
                return await self._threads.run(self._discard, os.path.dirname(key), part)
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
        await self._threads.run(self.folders.remove_stuck)  # what fills a disk goes first
        try:
            try:
                async with self.upload(probe, part=f"{probe}.part") as upload:
                    await upload.write(payload)
                    await upload.save()
            except StoreError as error:
                what = error.message.rpartition(" cannot be kept: ")[2]
                raise StoreUnavailable(f"{self.root} cannot be written: {what}", hint=error.hint, **error.facts) from None
            found = b"".join([block async for block in self.read(probe)])
        finally:
            try:
                await self._threads.run(os.unlink, f"{self.root}/{probe}")
            except OSError as error:
                # Of these there is nothing of ours, and why, is said already.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EROFS):
                    raise store_error_of(error, probe, StoreUnavailable) from None
        if found != payload:
            raise StoreUnavailable(f"{self.root}: what was written is not what is read back")
        # A drive may have come back in between, and a store that works is not checked again.
        await self._threads.run(self.folders.remove_stuck)
        return f"{self.root}, {await self.free() / 1e9:.1f} GB free"

    async def free(self) -> int:
        with translated(str(self.root)):
            return (await self._threads.run(shutil.disk_usage, self.root)).free

    async def longest_name(self) -> int:
        with translated(str(self.root), "looked at"):
            return await self._threads.run(self.folders.longest_name)

    async def empty(self) -> bool:
        with translated(str(self.root), "looked at"):
            return await self._threads.run(self.folders.empty)

    async def advice(self) -> Sequence[Advice]:
        with translated(str(self.root), "looked at"):
            return await self._threads.run(self.folders.advise)
