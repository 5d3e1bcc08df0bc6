"""What has to be in the store, held against the list of what is there; and what is there though nothing knows of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.fetching import in_order
from archiver.evidence.audit.listing import EVIDENCE, ORDINARY, QUARANTINED, UNFINISHED, is_young
from archiver.evidence.audit.report import Findings
from archiver.evidence.audit.scratch import key_text
from archiver.evidence.audit.told import session_of
from archiver.evidence.objects import FOLDER, parse, record_fallback_key
from archiver.evidence.sidecar import MAX_READ, read_record

MAX_SUSPECTS = 1000
"""Sessions whose rows differ of which the records are read for their files, unless all are."""

MAX_MISSING = 10_000
"""Objects that were not in the list, and not in the store when it was asked once more: of others the list is believed then."""

_RECORD_NAME = re.compile(r"(?:.*/)?session(?:\.[0-9]+)?\.json", re.DOTALL)

_WRONG = "l.key IS NULL OR l.bytes IS NOT e.bytes OR l.versions > 0"


@dataclass(frozen=True, slots=True)
class _Differing:
    """What has to be there with this `length`, and is not so in the list. `aside`: where a record may be, too."""

    key: bytes
    length: int
    name: bytes
    listed: bool
    found: int | None
    versions: int | None
    hidden: int | None
    damaged: int = 0
    rowid: int = 0
    aside: str = ""

    def is_listed_wrongly(self, findings: Findings) -> bool:
        """Name it if it is hidden, or was overwritten. Whether there is nothing else to say of it: it is hidden."""
        key, session = key_text(self.key), session_of(self.name)
        if self.hidden:
            findings.add("hidden", "its newest version is a delete marker", key=key, session=session)
        elif self.versions:
            findings.add("versions", f"there are {self.versions} other versions of it", key=key, session=session)
        return bool(self.hidden)


def is_record(key: str) -> bool:
    """Whether a key is one that a session's record may have, beside its recordings."""
    return _RECORD_NAME.fullmatch(key) is not None


class Objects:
    """Those of one audit."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._scratch = audit.scratch
        self._findings = audit.findings
        self._missing = 0

    async def check(self) -> AsyncIterator[None]:
        """All of them; yields now and then. Raises StoreUnavailable."""
        self._scratch.run("CREATE INDEX files_key ON files (key)")
        await self._place_records()
        await self._add_files_of_suspects()
        self._scratch.run("CREATE INDEX records_key ON records (key)")
        yield
        for check in (self._check_files, self._check_records, self._check_evidence, self._check_others):
            async for _ in check():
                yield
        for sort, name in ((QUARANTINED, "quarantined"), (UNFINISHED, "unfinished")):
            (count,) = self._scratch.one("SELECT count(*) FROM listing WHERE sort = ?", sort) or (0,)
            setattr(self._audit.report, name, count)

    # --- records that could not be kept beside their recordings

    async def _place_records(self) -> None:
        """Let each record's key be where it is: among the evidence, if it is there and nothing right is beside the recordings."""
        prefix = f"{FOLDER}record/".encode()
        listed = ("SELECT key, bytes FROM listing WHERE key > ? AND key < ?", prefix, prefix[:-1] + b"0")
        if self._scratch.one(*listed) is None:
            return
        self._scratch.run("CREATE INDEX records_hash ON records (sha256)")
        placed: list[tuple[bytes, int]] = []
        for key, size in self._scratch.rows(*listed):
            named = parse(key_text(key))
            if named is None or size is None:
                continue
            sha256 = bytes.fromhex(named.sha256)
            for rowid, beside, length, there in self._scratch.rows(
                "SELECT r.rowid, r.key, r.bytes, l.bytes FROM records r LEFT JOIN listing l ON l.key = r.key WHERE r.sha256 = ?",
                sha256,
            ):
                if length != size:
                    continue
                if there == length and await self._has_hash(key_text(beside), length, sha256):
                    # Here as well, if the store refused it there once.
                    if await self._has_hash(key_text(key), length, sha256):
                        self._scratch.add("checked", key)
                else:
                    placed.append((key, rowid))
        self._scratch.run_each("UPDATE records SET key = ? WHERE rowid = ?", placed)

    async def _has_hash(self, key: str, size: int, sha256: bytes) -> bool:
        return (await self._audit.reader.read_again(key, size, sha256)).verdict == "equal"

    # --- sessions whose rows are wrong

    async def _add_files_of_suspects(self) -> None:
        """What the database does not know any more, the record does: these files have to be there, too."""
        limit = -1 if self._audit.wanted.deep else MAX_SUSPECTS
        suspects = self._scratch.rows("SELECT name, key, bytes, sha256 FROM records WHERE suspect AND due LIMIT ?", limit)

        async def files(suspect: tuple[bytes, bytes, int, bytes]) -> list[tuple[bytes, int, bytes]]:
            found = await self._audit.reader.fetch(key_text(suspect[1]), min(suspect[2], MAX_READ))
            try:
                record = read_record(found.content or b"")
            except ValueError:
                return []
            return [(file.store_key.encode(), file.bytes, bytes.fromhex(file.sha256)) for file in record.files]

        async for suspect, of_record in in_order(suspects, files):
            for key, size, sha256 in of_record:
                if self._scratch.one("SELECT 1 FROM files WHERE key = ?", key) is None:
                    self._scratch.add("files", None, key, size, sha256, suspect[0])

    # --- what has to be there

    async def _check_files(self) -> AsyncIterator[None]:
        replica = self._audit.wanted.replica
        rows = self._scratch.rows(
            f"""SELECT e.key, e.bytes, e.name, l.key IS NOT NULL, l.bytes, l.versions, l.hidden, coalesce(m.damaged, 0),
                       coalesce(m.late, 0) OR u.queue_id IS NOT NULL
                FROM files e LEFT JOIN listing l ON l.key = e.key LEFT JOIN marks m ON m.queue_id = e.queue_id
                LEFT JOIN untold u ON u.queue_id = e.queue_id WHERE {_WRONG}"""  # noqa: S608
        )
        differing = (_Differing(*row[:8]) for row in rows if not (row[8] and replica))
        async for file, found in in_order(differing, self._size):
            yield
            if file.is_listed_wrongly(self._findings):
                continue
            if found == file.length:
                self._scratch.add("appeared", file.key)
                continue
            what, message = "changed", f"recorded {file.length} bytes, found {found}"
            if found is None:
                what, message = "recording_missing", f"recorded {file.length} bytes"
                if file.listed:
                    what, message = "changed", "it is no regular file"
            if file.damaged:
                self._findings.know("damaged", message, key_text(file.key))
            else:
                self._findings.add(what, message, key=key_text(file.key), session=session_of(file.name))

    async def _check_records(self) -> AsyncIterator[None]:
        bad: list[tuple[int]] = []
        rows = self._scratch.rows(
            f"""SELECT e.sha256, e.key, e.bytes, e.name, l.key IS NOT NULL, l.bytes, l.versions, l.hidden, 0, e.rowid
                FROM records e LEFT JOIN listing l ON l.key = e.key WHERE e.due AND ({_WRONG})"""  # noqa: S608
        )
        differing = (replace(_Differing(*beside), aside=record_fallback_key(sha256.hex())) for sha256, *beside in rows)
        async for record, found in in_order(differing, self._size):
            yield
            if record.is_listed_wrongly(self._findings):
                bad.append((record.rowid,))
                continue
            if found == record.length:
                continue
            bad.append((record.rowid,))
            what, message = "record_changed", f"it had {record.length} bytes, and has {found}"
            if found is None:
                what, message = "record_missing", f"it had {record.length} bytes"
                if record.listed:
                    what, message = "record_changed", "it is no regular file"
            self._findings.add(what, message, key=key_text(record.key), session=session_of(record.name))
        self._scratch.run_each("UPDATE records SET due = 0 WHERE rowid = ?", bad)

    async def _size(self, differing: _Differing) -> int | None:
        """The object's size; of what was not there when the list was made, the store is asked once more."""
        if differing.listed or self._missing > MAX_MISSING:
            return differing.found
        found = await self._audit.reader.size(key_text(differing.key))
        if found != differing.length and differing.aside:
            found = await self._audit.reader.size(differing.aside) or found
        self._missing += found is None
        return found

    async def _check_evidence(self) -> AsyncIterator[None]:
        """Bytes of the ledger's objects are checked already."""
        rows = self._scratch.rows(
            "SELECT l.key, l.versions, l.hidden FROM checked c JOIN listing l ON l.key = c.key WHERE l.hidden OR l.versions > 0"
        )
        for raw, versions, hidden in rows:
            yield
            name, message = ("hidden", "its newest version is a delete marker"), f"there are {versions} other versions of it"
            self._findings.add(*(name if hidden else ("versions", message)), key=key_text(raw))

    # --- what nobody recorded

    async def _check_others(self) -> AsyncIterator[None]:
        rows = self._scratch.rows(
            """SELECT l.key, l.sort, l.bytes, l.modified FROM listing l
               WHERE l.sort IN (?, ?) AND NOT l.hidden AND NOT EXISTS (SELECT 1 FROM files f WHERE f.key = l.key)
               AND NOT EXISTS (SELECT 1 FROM records r WHERE r.key = l.key)
               AND NOT EXISTS (SELECT 1 FROM checked c WHERE c.key = l.key)""",
            ORDINARY,
            EVIDENCE,
        )
        for raw, sort, size, modified in rows:
            yield
            key = key_text(raw)
            if size is not None and await self._is_noted(key, size):
                self._findings.know("noted", "a person accepted this object", key)
            elif self._may_come(raw, sort, modified):
                self._audit.report.pending_objects += 1
            else:
                self._findings.add("unrecorded", "no regular file" if size is None else f"{size} bytes", key=key)
                if key == self._audit.wanted.asked and size is not None:
                    self._audit.report.asked = await self._audit.reader.hash(key)

    async def _is_noted(self, key: str, size: int) -> bool:
        for (sha256,) in self._scratch.rows("SELECT sha256 FROM noted WHERE bytes = ?", size):
            if await self._has_hash(key, size, sha256):
                return True
        return False

    def _may_come(self, raw: bytes, sort: int, modified: float) -> bool:
        """Whether it may belong to what is not recorded yet, or to entries that are lost."""
        key, audit = key_text(raw), self._audit
        young = is_young(modified, audit.now, audit.wanted.patience)
        if sort == EVIDENCE:
            named = parse(key)
            return named is not None and named.kind == "record" and (young or bool(audit.lost))
        if young or (audit.lost and is_record(key)):
            return True
        found = self._scratch.look("SELECT prefix FROM pending WHERE prefix <= ? ORDER BY prefix DESC LIMIT 1", raw)
        return found is not None and raw.startswith(found[0])
