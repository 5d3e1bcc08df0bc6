"""What the database says, as the audit notes it: sessions, files, what waits to be sealed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from archiver.config.path_template import PathTemplate
from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.entries import TO_ADOPT
from archiver.evidence.audit.fold import OPEN
from archiver.evidence.audit.listing import DRIFT
from archiver.evidence.audit.scratch import Scratch, key_bytes
from archiver.evidence.audit.told import fixed_of, name_of, of_database, packed, session_of
from archiver.evidence.entries import KINDS, SESSION_EVENTS, session_sha256
from archiver.evidence.fields import Fields
from archiver.queue.audit import SessionRow, Snapshot
from archiver.queue.ledger import OutboxRow

OUTBOX_AT, ROW_AT = 2**61, 2**62
"""Behind all entries, in the order of the notes."""

_NAMES = ("bot", "session_id", "kind")
_NO_NAME = "\x01"


async def read_database(audit: Audit, snapshot: Snapshot) -> None:
    """Note all of it. Raises DatabaseError."""
    tables = _Tables(audit)
    audit.head, audit.unpublished = snapshot.head, await snapshot.unpublished()
    await read_salts(audit.scratch, snapshot)
    async for waiting in snapshot.outbox():
        tables.take_waiting(waiting)
    if audit.unpublished is not None:
        tables.count_unsealed(audit.unpublished.last - audit.unpublished.first + 1, audit.unpublished.sealed_at)
    async for row in snapshot.sessions():
        tables.take_session(row)
        audit.on_progress("sessions", audit.report.sessions)
    async for stray in snapshot.strays():
        audit.findings.add(
            "row_unrecorded", "a file's row is about no session", key=stray.store_key, session=(stray.bot, stray.session_id)
        )
    audit.scratch.flush()


async def read_salts(scratch: Scratch, snapshot: Snapshot) -> None:
    """Note whose hashes the ledger has, as far as the database knows it. Raises DatabaseError."""
    async for salted in snapshot.salts():
        hashed = session_sha256(salted.salt, salted.bot, salted.session_id, salted.kind)
        scratch.add("salts", salted.seq, name_of(salted.bot, salted.session_id, salted.kind), bytes.fromhex(hashed))
    scratch.flush()


class _Tables:
    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._scratch = audit.scratch
        self._report = audit.report

    def count_unsealed(self, rows: int, since: datetime) -> None:
        """So many rows wait, the first since then."""
        if since > self._audit.now + DRIFT:
            self._audit.findings.add("unsealed", f"a row waits since {since}, and that is not yet")
        self._report.unsealed_rows += rows
        seconds = (self._audit.now - since).total_seconds()
        self._report.unsealed_seconds = max(seconds, self._report.unsealed_seconds)

    def take_waiting(self, row: OutboxRow) -> None:
        """A row of the outbox. What is not as it should be will be sealed as unreadable: it says nothing."""
        self.count_unsealed(1, row.at)
        self._scratch.add("waiting", row.uid.bytes)
        try:
            body = Fields(row.body, "the body")
            if row.event == "noted":
                self._scratch.add("noted", bytes.fromhex(body.sha256("object_sha256")), body.integer("bytes"))
            if row.event not in SESSION_EVENTS or row.queue_id is None:
                return
            session = body.object("session")
            name = name_of(*(session.text(name) for name in _NAMES))
            told = of_database(session.all, body.all.get("files"))  # type: ignore[arg-type]
        except (ValueError, RecursionError):
            return
        pairs = told.pairs
        fixed = json.dumps(fixed_of(told)).encode()
        at = OUTBOX_AT + min(row.id, OUTBOX_AT - 1)
        values = (row.event, told.said["state"], packed(pairs), len(pairs), row.queue_id, 0, told.digest, fixed)
        self._scratch.add("steps", name, at, *values, None, None, None)

    def take_session(self, row: SessionRow) -> None:
        """A session, and its files."""
        name = name_of(*(row.session[column] for column in _NAMES))
        state = row.session["state"]
        fixed = None
        try:
            told = of_database(row.session, row.files)
            pairs, digest = told.pairs, told.digest
            if state in OPEN:
                fixed = json.dumps(fixed_of(told)).encode()
            _check_names(row)
            for file in told.files:
                self._scratch.add("files", row.id, key_bytes(file.store_key), file.bytes, bytes.fromhex(file.sha256), name)
        except (ValueError, RecursionError) as error:
            self._audit.findings.add("row_differs", f"the row cannot be read: {error}", session=session_of(name))
            pairs, digest = frozenset(), b""
        flags = TO_ADOPT if row.to_adopt else 0
        values = ("row", state, packed(pairs), len(row.files), row.id, flags, digest, fixed)
        self._scratch.add("steps", name, ROW_AT, *values, None, None, None)
        self._report.files += len(row.files)
        if state not in OPEN:
            self._report.sessions += 1
        elif (folder := _folder(self._audit.wanted.path, row.session)) is not None:
            self._scratch.add("pending", key_bytes(folder))


def _check_names(row: SessionRow) -> None:
    if any(file[column] != row.session[column] for file in row.files for column in _NAMES):
        raise ValueError("a file of it is said to be of another session")


def _folder(path: PathTemplate, session: Mapping[str, Any]) -> str | None:
    """With what the keys of a session's files begin."""
    try:
        date = datetime.fromisoformat(session["archive_date"])
        bot, session_id, kind = (session[name] for name in _NAMES)
        if kind not in KINDS:
            return None
        key = path.render(bot=bot, date=date, session_id=session_id, kind=kind, file_name=_NO_NAME)
    except (ValueError, OverflowError, TypeError, AttributeError):  # an owner can let columns be null
        return None
    return key.partition(_NO_NAME)[0]
