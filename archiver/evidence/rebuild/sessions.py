"""Sessions as they were: of each the newest record that can be read, and what the entries say that followed."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from archiver.config.path_template import path_part
from archiver.errors import EvidenceError
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.fetching import in_order
from archiver.evidence.audit.fold import OPEN, Pair
from archiver.evidence.audit.listing import ORDINARY
from archiver.evidence.audit.scratch import key_bytes, key_text
from archiver.evidence.audit.told import of_record, session_of, unpacked
from archiver.evidence.objects import record_fallback_key
from archiver.evidence.rebuild.report import Rebuilt
from archiver.evidence.sidecar import MAX_READ, LaterSchema, Record, RecordedFile, read_record
from archiver.queue.rebuilding import RestoredSession

RECORDS_AT_ONCE = 16

MAX_SEARCHED = 1000
"""Sessions without a record whose recordings are looked for by their hashes: for each the whole list of the store is read."""
MAX_CANDIDATES = 100
"""Objects that are hashed for one of them."""

_EDITION = re.compile(r"(?:.*/)?session(?:\.(?P<number>[1-9][0-9]{0,8}))?\.json", re.DOTALL)
_FILE = tuple(RecordedFile.__dataclass_fields__)
_SAME = (
    "bot", "session_id", "kind", "user_id", "started_at", "ended_at", "listed_at", "priority", "metadata", "archive_date",
    "enqueued_at", "call",
)  # fmt: skip
_HOW_IT_ENDED = ("reason", "detail", "finished_at")
_COUNTERS = ("failures", "checks", "crashes", "rechecks")


@dataclass(frozen=True, slots=True)
class _Step:
    """An entry of a session."""

    name: bytes
    at: int
    state: str
    files: bytes | None
    record: bytes | None
    record_key: bytes | None
    record_bytes: int | None

    @property
    def edition(self) -> int | None:
        """Of the record, as far as its name tells."""
        found = None if self.record_key is None else _EDITION.fullmatch(key_text(self.record_key))
        return None if found is None else int(found["number"] or 1)


@dataclass(frozen=True, slots=True)
class Restoring:
    """A session that is to be put in. `reopened`: it waits, and no entry says so yet; `bytes`: of its record."""

    session: RestoredSession
    reopened: bool
    bytes: int


class Sessions:
    """Those of a ledger, read up to `size`; of a database that has the first `base` entries, those that changed since."""

    def __init__(self, audit: Audit, report: Rebuilt, *, base: int, size: int) -> None:
        self._audit = audit
        self._report = report
        self._base = base
        self._size = size
        self._searched = 0

    async def read(self) -> AsyncGenerator[Restoring, None]:
        """Each of them. Raises StoreUnavailable, EvidenceError where a later version wrote its record."""
        async with aclosing(in_order(self._all(), self._newest, RECORDS_AT_ONCE)) as found:
            async for steps, (step, record) in found:
                restoring = self._restored(steps, step, record)
                if any(each.record is not None for each in steps) and (record is None or _lacks(record, steps[-1])):
                    restoring = await self._by_hashes(steps, restoring)
                yield restoring

    def _all(self) -> Iterator[list[_Step]]:
        rows = self._audit.scratch.rows(
            """SELECT name, at, state, files, record, record_key, record_bytes FROM steps
               WHERE at < ? AND name IN (SELECT name FROM steps WHERE at >= ? AND at < ?) ORDER BY name, at""",
            self._size,
            self._base,
            self._size,
        )
        for _, of_one in itertools.groupby((_Step(*row) for row in rows), key=lambda step: step.name):
            yield list(of_one)

    async def _newest(self, steps: list[_Step]) -> tuple[_Step | None, Record | None]:
        """The newest record that can be read, and its entry. Those that cannot are losses: but for the newest their content is in
        later ones.
        """
        is_newest = True
        for step in reversed(steps):
            if step.record is None or step.record_key is None or step.record_bytes is None:
                continue
            record, problem = await self._read(step)
            if record is not None:
                return step, record
            if is_newest:
                self._report.lose("record", problem, key=key_text(step.record_key), session=session_of(step.name))
            is_newest = False
        return None, None

    async def _read(self, step: _Step) -> tuple[Record | None, str]:
        assert step.record is not None
        assert step.record_key is not None
        problem = "it is gone"
        for key in (key_text(step.record_key), record_fallback_key(step.record.hex())):
            fetched = await self._audit.reader.fetch(key, min(step.record_bytes or 0, MAX_READ))
            if fetched.content is None:
                problem = fetched.problem or problem
            elif hashlib.sha256(fetched.content).digest() != step.record:
                problem = f"it has another hash than entry {step.at} says"
            else:
                try:
                    return read_record(fetched.content), ""
                except LaterSchema as error:
                    raise EvidenceError(f"{key} is {error}", hint="rebuild with the version that wrote it") from None
                except ValueError as error:
                    return None, f"what was sealed is no record: {error}"
        return None, problem

    def _restored(self, steps: list[_Step], step: _Step | None, record: Record | None) -> Restoring:
        last = steps[-1]
        lost = any(each.record is not None for each in steps) and (record is None or step is None or self._is_older(steps, step))
        waits = last.state in OPEN or (lost and (record is None or record.state != last.state or _lacks(record, last)))
        columns: dict[str, Any]
        if record is None:
            columns = dict(zip(("bot", "session_id", "kind"), json.loads(last.name), strict=True))
        else:
            columns = {name: getattr(record, name) for name in _SAME} | {
                "epoch": record.attempts.epoch,
                "calls": record.attempts.calls,
            }
            columns["last_asked_at"] = record.asks[-1].at if record.asks else None
        columns |= {"state": "pending", "archived_before": any(each.state == "archived" for each in steps)}
        if record is not None and not waits:
            columns |= {name: getattr(record, name) for name in _HOW_IT_ENDED}
            columns |= {name: getattr(record.attempts, name) for name in _COUNTERS}
            columns |= {"state": record.state, "archived_before": False, "first_asked_at": _first_asked_at(record)}
            if record.state == "archived":  # so that it has all that the platform listed
                columns["files"] = sum(file.ordinal > 0 for file in record.files)
            if record.accepted is not None:
                accepted = record.accepted
                columns |= {"accepted_at": accepted.at, "accepted_by": accepted.by, "accept_reason": accepted.because}
        files = [] if record is None else [{name: getattr(file, name) for name in _FILE} for file in record.files]
        entries = [
            (each.at, record.edition if record is not None and each is step else each.edition)
            for each in steps
            if each.at >= self._base
        ]
        history = [] if record is None else list(_history(record))
        session = RestoredSession(columns, files, history, entries)
        return Restoring(session, waits and last.state not in OPEN, 0 if step is None else step.record_bytes or 0)

    async def _by_hashes(self, steps: list[_Step], restoring: Restoring) -> Restoring:
        """One whose records lack recordings, as far as they can be read: these are known by their hashes, and lie where a key has
        its name.
        """
        keys = {file["store_key"] for file in restoring.session.files}
        known = {(file["ordinal"], bytes.fromhex(file["sha256"])) for file in restoring.session.files}
        wanted = {pair for step in steps if step.files is not None for pair in unpacked(step.files)} - known
        columns = restoring.session.columns
        self._searched += 1
        if not wanted or self._searched > MAX_SEARCHED:
            return restoring
        found: dict[Pair, dict[str, Any]] = {}
        day = None
        candidates = self._audit.scratch.rows(
            "SELECT key FROM listing WHERE sort = ? AND bytes > 0 AND instr(key, ?) LIMIT ?",
            ORDINARY,
            key_bytes(path_part(columns["session_id"])),
            MAX_CANDIDATES,
        )
        for (raw,) in candidates:
            key = key_text(raw)
            fields = None if key in keys else self._audit.wanted.path.parse(key)
            if fields is None or (fields.session_id, fields.kind) != (columns["session_id"], columns["kind"]):
                continue
            hashed = await self._audit.reader.hash(key)
            for place, sha256 in wanted - set(found) if hashed is not None else ():
                if hashed is not None and sha256.hex() == hashed[0]:
                    day = day or fields.date.isoformat()
                    names = {"file_name": fields.file_name, "source_name": fields.file_name, "store_key": key}
                    found[place, sha256] = {"ordinal": place, "sha256": sha256.hex(), "bytes": hashed[1], **names}
                    break
        whole = len(found) == len(wanted) and steps[-1].state == "archived"
        columns = {
            **columns,
            "archive_date": columns.get("archive_date") or day,
            **({"state": "archived", "archived_before": False} if whole else {}),
        }
        files = [*restoring.session.files, *found.values()]
        session = replace(restoring.session, columns=columns, files=files)
        return replace(restoring, session=session, reopened=restoring.reopened and not whole)

    @staticmethod
    def _is_older(steps: list[_Step], step: _Step) -> bool:
        return any(each.at > step.at and each.record is not None for each in steps)


def _lacks(record: Record, last: _Step) -> bool:
    """Whether an older record lacks a file that the last entry has."""
    return last.files is not None and not unpacked(last.files) <= of_record(record).pairs


def _first_asked_at(record: Record) -> str | None:
    """Since it was brought back last, if it was."""
    retried = max((act.at for act in record.acts if act.event == "retried"), default="")
    return min((ask.at for ask in record.asks if ask.at > retried), default=None)


def _history(record: Record) -> Iterator[Mapping[str, Any]]:
    """What the record knows of it, in the order of time."""
    asks = [
        {"at": ask.at, "event": "asked", "data": {"http_status": ask.http_status, "status": ask.status, "answer": ask.answer}}
        for ask in record.asks
    ]
    acts = [{"at": act.at, "event": act.event, "actor": act.by, "data": act.data} for act in record.acts]
    yield from sorted([*asks, *acts], key=lambda event: event["at"])
