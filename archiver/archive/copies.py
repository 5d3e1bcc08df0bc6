"""Copies of recorded files, brought out of the store into a folder: each is what was recorded, or is not there.

A copy is written beside its place, hashed on the way, made durable, and gets its name only if it is equal. Nothing is ever
overwritten. The folder is written as a folder store is: no link below it is followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import stat
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

from archiver.archive.naming import FileNames
from archiver.config.path_template import path_part
from archiver.errors import ArchiverError, KeyConflict, StoreError, StoreUnavailable, UsageError
from archiver.queue.reports import SessionFile, SessionFiles
from archiver.runtime.buffers import Buffers
from archiver.stores import Store, Upload
from archiver.stores.local.disk import names_in
from archiver.stores.local.store import LocalStore

PART = ".get.part"
"""The temporary file; the folder's store adds what nobody can foresee."""

_LEFT = re.compile(r"\.get\.[0-9a-f]{16}\.part")

LEFT_FOR = timedelta(hours=1)
"""Temporary files to which nothing was written for so long are nobody's any more."""

Outcome = Literal["copied", "existed", "taken", "missing", "changed", "unreadable"]
"""`existed`: an equal file was there. `taken`: something else has its place. The last three say what is in the store."""

_FOLDER = "check the folder, or choose another one with --output; by hard links nothing is overwritten: exFAT and sshfs have none"
_THERE = "another file has this name already, and is left as it is"


@dataclass(frozen=True)
class Copy:
    """What became of one recorded file. `sha256_found`: of what is there instead, in the folder (`taken`) or in the store."""

    file: SessionFile
    kind: str
    path: str
    outcome: Outcome
    sha256_found: str | None = None
    message: str = ""


def folder_for(session_id: str) -> Path:
    """The folder that a session's copies go to if nobody names one: `..` is a session ID, too."""
    return Path(path_part(session_id))


async def copies(
    store: Store, sessions: Sequence[SessionFiles], folder: Path, buffers: Buffers, *, store_root: Path | None
) -> AsyncIterator[Copy]:
    """Copy the files of sessions of one ID and bot. Several kinds get a folder each, so that their names do not meet.

    Raises UsageError for a place inside of `store_root`, ArchiverError where the folder cannot be written.
    """
    parted = len(sessions) > 1
    if store_root is not None:
        _refuse_store([folder, *(folder / session.kind for session in sessions if parted)], store_root)
    if await asyncio.to_thread(_is_no_folder, Path.cwd() / folder):
        raise ArchiverError(f"{folder} is no folder", hint="choose another one with --output")
    copied = LocalStore(Path.cwd() / folder, buffers)
    try:
        for place in ["", *(session.kind for session in sessions if parted)]:
            await asyncio.to_thread(_sweep, copied, place)
        for session in sessions:
            # Cleaned again, as if they came from the platform: whoever may write rows could put any path there.
            names = FileNames(())
            for file in session.files:
                name = names.take(file.file_name)
                yield await _copy(store, copied, file, session.kind, f"{session.kind}/{name}" if parted else name, folder)
    finally:
        copied.close()


def _sweep(copied: LocalStore, place: str) -> None:
    """Remove what a `get` that was killed left in a folder; what is younger than LEFT_FOR may be another one's, at work."""
    with suppress(OSError), copied.folders.opened(place) as folder:
        for name in list(names_in(folder)):
            if _LEFT.fullmatch(name) is None:
                continue
            with suppress(OSError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and time.time() - found.st_mtime > LEFT_FOR.total_seconds():
                    os.unlink(name, dir_fd=folder)


def _is_no_folder(path: Path) -> bool:
    nearest = next(above for above in (path, *path.parents) if os.path.lexists(above))
    return not nearest.is_dir()


def _refuse_store(places: Sequence[Path], store_root: Path) -> None:
    for place in places:
        if is_within(place, store_root):
            raise UsageError(
                f"{place} lies in the archive's own store",
                hint="choose a folder elsewhere with --output: what is put there by hand harms it",
            )


async def _copy(store: Store, copied: LocalStore, file: SessionFile, kind: str, key: str, folder: Path) -> Copy:
    path = str(folder / key)
    try:
        found = await _hash_of_copy(copied, key, file.bytes)
    except StoreUnavailable as error:
        raise ArchiverError(error.message, hint=_FOLDER) from None
    except StoreError as error:
        return Copy(file, kind, path, "taken", None, error.message)
    if found == file.sha256:
        return Copy(file, kind, path, "existed", found)
    if found is not None:
        return Copy(file, kind, path, "taken", found or None, _THERE)
    with _writing():
        async with copied.upload(key, part=PART) as upload:
            upload.expect(file.bytes)
            outcome, sha256, message = await _fill(upload, store, file)
            if outcome == "copied":
                try:
                    saved = await upload.save()
                except KeyConflict as error:  # it has appeared meanwhile
                    return Copy(file, kind, path, "taken", error.facts["stored_sha256"], _THERE)
                outcome = "existed" if saved.existed else "copied"
    return Copy(file, kind, path, outcome, sha256, message)


async def _fill(upload: Upload, store: Store, file: SessionFile) -> tuple[Outcome, str | None, str]:
    """Write what the store has of a file. Returns what that is, its hash, and for people what is wrong with it."""
    digest = hashlib.sha256()
    read = 0
    blocks = store.read(file.store_key)
    async with aclosing(blocks):
        while True:
            try:
                block = await anext(blocks, b"")
            except StoreError as error:
                return "missing" if error.facts.get("missing") else "unreadable", None, error.message
            if not block:
                break
            digest.update(block)
            read += len(block)
            if read > file.bytes:  # whatever else comes, it could be without an end
                return "changed", None, f"recorded {file.bytes} bytes, found more"
            await upload.write(block)
    sha256 = digest.hexdigest()
    if (sha256, read) != (file.sha256, file.bytes):
        return "changed", sha256, f"recorded {file.bytes} bytes, found {read} bytes"
    return "copied", sha256, ""


async def _hash_of_copy(copied: LocalStore, key: str, size: int) -> str | None:
    """The SHA-256 of what has this name in the folder, empty where that has more than `size` bytes; None where nothing has it.
    Raises StoreError for what is no file.
    """
    digest = hashlib.sha256()
    read = 0
    try:
        async with aclosing(copied.read(key)) as blocks:
            async for block in blocks:
                digest.update(block)
                read += len(block)
                if read > size:  # whatever else comes, it could be without an end
                    return ""
    except StoreError as error:
        if error.facts.get("missing"):
            return None
        raise
    return digest.hexdigest()


@contextmanager
def _writing() -> Iterator[None]:
    """What a folder store says of its own, said of a folder that is none."""
    try:
        yield
    except StoreError as error:
        raise ArchiverError(error.message, hint=_FOLDER) from None


def is_within(place: Path, folder: Path) -> bool:
    """Whether `place`, which need not be there yet, is `folder` or lies in it, by whatever name or link."""
    try:
        root = folder.stat()
    except OSError:
        return place.resolve().is_relative_to(folder.resolve())
    resolved = place.resolve()
    for above in (resolved, *resolved.parents):
        with suppress(OSError):
            if os.path.samestat(above.stat(), root):
                return True
    return False
