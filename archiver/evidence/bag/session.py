"""One session of a bag: its files, its record, its entry and the proof of that, in a folder that appears when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from archiver.errors import ArchiverError, EvidenceError, StoreError, StoreUnavailable
from archiver.evidence.bag.folder import BLOCK, NewFile, hash_file, keep_names, move_new, remove_tree, write_new, writing
from archiver.evidence.bag.verify import names
from archiver.evidence.entries import Entry, parse
from archiver.evidence.objects import record_fallback_key
from archiver.evidence.proving import AUDIT, Proof
from archiver.evidence.reading import read_whole
from archiver.evidence.sidecar import MAX_READ, Record, RecordedFile, read_record
from archiver.runtime.buffers import Buffers
from archiver.stores import Store

ENTRY, PROOF, RECORD = "entry.json", "entry.tlog-proof", "session.json"


class LeftOut(Exception):
    """A session cannot be handed out: `str()` says why. `unavailable`: the store as a whole may be at fault."""

    def __init__(self, why: str, unavailable: StoreUnavailable | None = None) -> None:
        super().__init__(why)
        self.unavailable = unavailable


@dataclass(frozen=True, slots=True)
class Proven:
    """A session as its newest record has it. `content`: the record's bytes."""

    proof: Proof
    entry: Entry
    content: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Handed:
    """A session that lies in the bag. `listed`: name, SHA-256 and length of each file; `files`: the recorded ones, by name."""

    proven: Proven
    listed: list[tuple[str, str, int]]
    files: list[tuple[str, RecordedFile]]
    copied: bool = True


async def read_proven(store: Store, proof: Proof) -> Proven:
    """The session that a proven entry is about. Raises LeftOut where it names no record, or that is not what was sealed."""
    try:
        entry = parse(proof.line)
    except ValueError as error:
        raise EvidenceError(f"entry {proof.index}: {error}", hint=AUDIT) from None
    if entry.record is None or entry.record_key is None:
        raise LeftOut("the ledger has no record of it")
    content = await _read_record(store, entry.record_key, entry.record)
    try:
        return Proven(proof, entry, content, read_record(content))
    except ValueError as error:
        raise LeftOut(f"{entry.record_key}: {error}") from None


def check_named(proven: Proven, bot: str, session_id: str, kind: str) -> None:
    """The database says which entry is about which session; the entry itself has the last word. Raises LeftOut."""
    if (proven.entry.bot, proven.entry.session, proven.entry.kind) != (bot, session_id, kind):
        raise LeftOut(f"entry {proven.proof.index} of the ledger is of another session: `archiver audit` says more")


async def _read_record(store: Store, key: str, sha256: str) -> bytes:
    wrong = ""
    for place in (key, record_fallback_key(sha256)):
        try:
            content = await read_whole(store, place, MAX_READ)
        except StoreUnavailable as error:
            raise LeftOut(f"{place} cannot be read: {error.message}", error) from None
        except StoreError as error:
            wrong = wrong or (f"{place} is missing" if error.facts.get("missing") else f"{place}: {error.message}")
            continue
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
        wrong = wrong or f"{place} is not what was sealed"
    raise LeftOut(wrong)


def small_files(proven: Proven, note: bytes) -> dict[str, bytes]:
    """What lies beside the recordings."""
    return {RECORD: proven.content, ENTRY: proven.proof.line, PROOF: proven.proof.text(note)}


def named_files(record: Record) -> list[tuple[str, RecordedFile]]:
    """The recorded files, by the names that they have in a bag."""
    plain = [{"ordinal": file.ordinal, "file_name": file.file_name} for file in record.files]
    return list(zip(names(plain), record.files, strict=True))


@dataclass(frozen=True, slots=True)
class Copier:
    """Brings sessions into a bag's folders. `parts`: where they are until they are whole."""

    store: Store
    buffers: Buffers
    note: bytes
    parts: Path

    async def bring(self, proven: Proven, target: Path) -> Handed:
        """Copy the session, or take over what lies there if it is whole and right. Raises LeftOut where the store has not what
        was recorded; ArchiverError where the folder cannot be written, or has something else.
        """
        small, files = small_files(proven, self.note), named_files(proven.record)
        listed = [(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in small.items()]
        listed += [(name, file.sha256, file.bytes) for name, file in files]
        listed.sort()
        with writing(target):
            there = await asyncio.to_thread(_check, target, listed)
        if there:
            return Handed(proven, listed, files, copied=False)
        part = self.parts / target.name
        try:
            with writing(part):
                await asyncio.to_thread(_begin, part, small)
                for name, file in files:
                    await self._copy(file, part / name)
                await asyncio.to_thread(_end, part, target)
        except LeftOut:
            await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
            raise
        return Handed(proven, listed, files)

    async def _copy(self, file: RecordedFile, path: Path) -> None:
        async with self.buffers.reserve(2 * BLOCK):
            new = await asyncio.to_thread(NewFile, path)
            try:
                blocks = self.store.read(file.store_key)
                async with aclosing(blocks):
                    while block := await self._next(blocks, file):
                        await asyncio.to_thread(new.write, block)
                        if new.bytes > file.bytes:  # whatever else comes, it could be without an end
                            break
                if (new.sha256.hexdigest(), new.bytes) != (file.sha256, file.bytes):
                    raise LeftOut(f"changed: {file.store_key} is not what was recorded")
                await asyncio.to_thread(new.save)
            finally:
                new.close()

    async def _next(self, blocks: AsyncGenerator[bytes, None], file: RecordedFile) -> bytes:
        try:
            return await anext(blocks, b"")
        except StoreUnavailable as error:
            raise LeftOut(f"unreadable: {file.store_key}: {error.message}", error) from None
        except StoreError as error:
            what = "missing" if error.facts.get("missing") else "unreadable"
            raise LeftOut(f"{what}: {file.store_key}: {error.message}") from None


def _begin(part: Path, small: dict[str, bytes]) -> None:
    remove_tree(part)  # what an export left that was ended here
    part.mkdir(mode=0o750, parents=True)
    for name, content in small.items():
        write_new(part / name, content)


def _end(part: Path, target: Path) -> None:
    keep_names(part)
    target.parent.mkdir(mode=0o750, exist_ok=True)
    move_new(part, target)
    keep_names(target.parent)


def _check(target: Path, listed: list[tuple[str, str, int]]) -> bool:
    """Whether the session lies there already. Raises ArchiverError for what is not exactly that."""
    if not os.path.lexists(target):
        return False
    expected = {name: (sha256, size) for name, sha256, size in listed}
    there = {path.name for path in target.iterdir()}
    for name in sorted(there | expected.keys()):
        if name not in there or name not in expected or hash_file(target / name) != expected[name]:
            raise ArchiverError(
                f"{target / name} is not what was exported, or not any more",
                hint=f"remove the folder {target}, and run the same command again: it makes it anew",
            )
    return True
