"""The contents of records and recordings: read, hashed, and held against the ledger, the database, and each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from fractions import Fraction
from typing import NamedTuple

from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.fetching import Fetched, in_order
from archiver.evidence.audit.scratch import key_text
from archiver.evidence.audit.told import (
    Told,
    changed_by,
    changed_for_ever,
    differing,
    fixed_of,
    name_of,
    of_database,
    of_record,
    session_of,
)
from archiver.evidence.objects import record_fallback_key
from archiver.evidence.sidecar import MAX_READ, LaterSchema, Record, read_record
from archiver.queue.audit import AuditQueries
from archiver.stores.fixity import Reading

RECORDS_AT_ONCE = 8
RECORDINGS_AT_ONCE = 4


class _Due(NamedTuple):
    """A row of `records`."""

    seq: int
    name: bytes
    key: bytes
    length: int
    sha256: bytes
    queue_id: int | None
    row: bytes | None
    waiting: bytes | None
    prior: int


class _File(NamedTuple):
    """A row of `files`."""

    key: bytes
    length: int
    sha256: bytes
    name: bytes
    damaged: bool


def is_sampled(seq: int, day: int, part: Fraction) -> bool:
    """Whether a part such as 1/30 has this entry today: on the days that follow each other it has all, each once."""
    slot = int.from_bytes(hashlib.sha256(seq.to_bytes(8, "big")).digest()[:8], "big") % part.denominator
    return (slot - day * part.numerator) % part.denominator < part.numerator


class Contents:
    """Those of one audit. `newest`: records of entries from there on are always read."""

    def __init__(self, audit: Audit, queries: AuditQueries, newest: int) -> None:
        self._audit = audit
        self._queries = queries
        self._newest = newest
        self._findings = audit.findings
        self._before: tuple[bytes, Mapping[str, str]] = (b"", {})
        self._last: tuple[int, Told] | None = None

    # --- records

    def _due(self) -> Iterator[_Due]:
        wanted, day = self._audit.wanted, self._audit.now.toordinal()
        rows = self._audit.scratch.rows(
            "SELECT seq, name, key, bytes, sha256, queue_id, row, waiting, prior FROM records WHERE due ORDER BY rowid"
        )
        for due in map(_Due._make, rows):
            sampled = wanted.sample is not None and is_sampled(due.seq, day, wanted.sample)
            if wanted.deep or sampled or due.seq >= self._newest:
                yield due

    async def check_records(self) -> AsyncIterator[None]:
        """Those that are to be read; yields after each. Raises StoreUnavailable, DatabaseError."""

        async def read(due: _Due) -> Fetched:
            return await self._audit.reader.fetch(key_text(due.key), min(due.length, MAX_READ))

        async with aclosing(in_order(self._due(), read, RECORDS_AT_ONCE)) as reading:
            async for due, fetched in reading:
                await self._check(due, fetched)
                self._audit.report.records_read += 1
                self._audit.on_progress("records", self._audit.report.records_read)
                yield

    async def _check(self, due: _Due, fetched: Fetched) -> None:
        key, session = key_text(due.key), session_of(due.name)
        if fetched.content is None and not fetched.problem:
            fetched = await self._audit.reader.fetch(record_fallback_key(due.sha256.hex()), min(due.length, MAX_READ))
        content = fetched.content
        if content is None:
            name = "unreadable" if fetched.problem else "record_missing"
            self._findings.add(name, fetched.problem or "it is gone", key=key, session=session)
        elif hashlib.sha256(content).digest() != due.sha256:
            self._findings.add("record_changed", f"it has another hash than entry {due.seq} says", key=key, session=session)
        else:
            try:
                record = read_record(content)
            except LaterSchema as error:
                self._findings.add("later_schema", str(error), key=key, session=session)
            except ValueError as error:
                self._findings.add("unreadable", f"what was sealed is no record: {error}", key=key, session=session)
            else:
                await self._compare(due, record, key, session)

    async def _compare(self, due: _Due, record: Record, key: str, session: tuple[str, str]) -> None:
        told = of_record(record)
        changed = [] if name_of(record.bot, record.session_id, record.kind) == due.name else ["the session itself"]
        fixed = fixed_of(told)
        earlier = self._before[1] if self._before[0] == due.name else {}
        changed += changed_for_ever(earlier, fixed)
        if not changed and self._last is not None and self._last[0] == due.prior:
            changed += changed_by(record.event, self._last[1], told)
        self._last = (due.seq, told)
        self._before = (due.name, {**fixed, **earlier})
        if changed:
            self._findings.add("contradiction", f"{_named(changed)} is not what an earlier record says", key=key, session=session)
        elif due.waiting is not None and (later := changed_for_ever(fixed, json.loads(due.waiting))):
            if due.queue_id is None:
                self._findings.add("contradiction", f"what waits to be sealed changes {_named(later)}", key=key, session=session)
            else:
                message = f"the database lacks, or has another, {_named(later)} than the record"
                self._findings.add("row_differs", message, key=key, session=session)
        if due.row is not None and due.row != told.digest:
            await self._differ(due, told, key, session)

    async def _differ(self, due: _Due, told: Told, key: str, session: tuple[str, str]) -> None:
        """The row is not what the newest record says, or that left something out. Which columns, the database still says."""
        assert due.queue_id is not None
        row = await self._queries.session(due.queue_id)
        try:
            now = None if row is None else of_database(row.session, row.files)
        except ValueError:
            now = None
        if now is not None and now.digest == due.row:
            if names := differing(told, now):
                message = f"the database and the record differ in: {_named(names)}"
                self._findings.add("row_differs", message, key=key, session=session)
        elif not told.left_out:
            self._findings.add("row_differs", "the database said something else than the record", key=key, session=session)

    # --- recordings

    async def check_recordings(self) -> AsyncIterator[None]:
        """All that are there with their size; yields after each. Raises StoreUnavailable."""
        rows = self._audit.scratch.rows(
            """SELECT f.key, f.bytes, f.sha256, f.name, coalesce(m.damaged, 0)
               FROM files f LEFT JOIN listing l ON l.key = f.key LEFT JOIN marks m ON m.queue_id = f.queue_id
               WHERE l.bytes = f.bytes OR EXISTS (SELECT 1 FROM appeared a WHERE a.key = f.key) ORDER BY f.rowid"""
        )

        async def read(file: _File) -> Reading:
            return await self._audit.reader.read_again(key_text(file.key), file.length, file.sha256)

        async with aclosing(in_order(map(_File._make, rows), read, RECORDINGS_AT_ONCE)) as reading:
            async for number, (file, found) in _counted(reading):
                if found.verdict != "equal":
                    self._add(file, found)
                self._audit.on_progress("recordings", number)
                yield

    def _add(self, file: _File, found: Reading) -> None:
        key = key_text(file.key)
        if file.damaged:
            self._findings.know("damaged", found.message, key)
            return
        names = {"missing": "recording_missing", "unreadable": "unreadable"}
        self._findings.add(names.get(found.verdict, "changed"), found.message, key=key, session=session_of(file.name))


async def _counted(items: AsyncIterator[tuple[_File, Reading]]) -> AsyncIterator[tuple[int, tuple[_File, Reading]]]:
    number = 0
    async for item in items:
        number += 1
        yield number, item


def _named(names: list[str]) -> str:
    """A few of them."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
