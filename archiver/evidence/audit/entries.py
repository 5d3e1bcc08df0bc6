"""What the lines of a segment say, as the audit notes it."""

from __future__ import annotations

import re

from archiver.evidence.audit.context import Audit
from archiver.evidence.audit.listing import DRIFT
from archiver.evidence.audit.scratch import key_bytes
from archiver.evidence.audit.told import name_of, packed
from archiver.evidence.entries import RESERVED, SESSION_EVENTS, Entry, parse

BEYOND = 1
"""Flag of an entry that was sealed after the database was read: it explains objects, and nothing is held against it."""
TO_ADOPT = 2
"""Flag of a session that ended before the ledger was begun, and is still to be adopted."""


_LATER = re.compile(rb'"v":(?:[2-9]|[1-9][0-9]+)[,}]')


class Lines:
    """Takes the lines of one segment. `keys`: the `key` entries among them; `problems`: lines that are no entries."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._known: list[str] = []
        self._reserved = 0
        self._said: list[tuple[int, Entry]] = []
        self._unnamed: list[int] = []
        self.keys: list[tuple[int, Entry]] = []
        self.problems: list[tuple[str, str]] = []
        (self._before,) = audit.scratch.one("SELECT coalesce(max(rowid), 0) FROM steps") or (0,)

    def take(self, seq: int, line: bytes) -> None:
        """The line at this index."""
        try:
            entry = parse(line)
        except ValueError as error:
            later = _LATER.search(line) is not None
            self.problems.append(
                ("later_schema" if later else "unreadable", f"entry {seq} is none that this program knows: {error}")
            )
            return
        if self._audit.wanted.rebuild_from is not None and seq >= self._audit.wanted.rebuild_from:
            self._audit.scratch.add("uids", seq, entry.uid.bytes)
        if self._audit.head is not None and seq >= self._audit.size and not self._is_new(entry):
            self.problems.append(
                (
                    "rolled_back",
                    f"entry {seq} was sealed when the database was read, and it knew of {self._audit.size} entries",
                )
            )
        if entry.event in SESSION_EVENTS:
            self._take_session(seq, entry)
        elif entry.event == "key":
            self.keys.append((seq, entry))
        elif entry.event in ("noted", "rebuilt", "account"):
            self._said.append((seq, entry))
        elif entry.event == "unreadable":
            self._known.append(f"entry {seq}: what was to be sealed there could not be read")
        elif entry.event in RESERVED:
            self._reserved += 1

    def _is_new(self, entry: Entry) -> bool:
        """Whether it can have been sealed since the database was read: it waited then, or came since."""
        if entry.at >= self._audit.now - DRIFT:
            return True
        return self._audit.scratch.look("SELECT 1 FROM waiting WHERE uid = ?", entry.uid.bytes) is not None

    def _take_session(self, seq: int, entry: Entry) -> None:
        name = self._name(seq, entry)
        if name is None:
            return
        files = entry.files
        self._audit.scratch.add(
            "steps",
            name,
            seq,
            entry.event,
            entry.state,
            None if files is None else packed((place, bytes.fromhex(sha256)) for place, sha256 in files),
            entry.files_count if files is None else len(files),
            None,
            BEYOND if seq >= self._audit.size else 0,
            None,
            None,
            None if entry.record is None else bytes.fromhex(entry.record),
            None if entry.record_key is None else key_bytes(entry.record_key),
            entry.record_bytes,
        )

    def _name(self, seq: int, entry: Entry) -> bytes | None:
        if entry.bot is not None and entry.session is not None and entry.kind is not None:
            return name_of(entry.bot, entry.session, entry.kind)
        if entry.session_sha256 is None or (seq >= self._audit.size and self._audit.wanted.rebuild_from is None):
            return None
        found = self._audit.scratch.look("SELECT name, hash FROM salts WHERE seq = ?", seq)
        if found is not None and found[1].hex() == entry.session_sha256:
            return bytes(found[0])
        self._unnamed.append(seq)
        return None

    def keep(self, *, vouched: bool = True, proven: bool = True) -> None:
        """They are what was sealed, as far as that can be told. `vouched`: somebody signed for so many; `proven`: for these."""
        findings, report = self._audit.findings, self._audit.report
        for name, message in self.problems:
            findings.add(name, message)
        for message in self._known:
            findings.know("unreadable", message)
        report.reserved += self._reserved
        for seq, entry in self._said:
            if proven if entry.event != "noted" else vouched:
                self._take_said(seq, entry)
        for seq in self._unnamed:
            self._audit.scratch.add("unnamed", seq)

    def _take_said(self, seq: int, entry: Entry) -> None:
        if entry.event == "noted":
            self._audit.scratch.add("noted", bytes.fromhex(entry.body["object_sha256"]), entry.body["bytes"])
        elif entry.event == "rebuilt":
            self._audit.rebuilt.append((seq, entry))
        else:
            self._audit.accounts = max(self._audit.accounts, entry.body["account"])

    def drop(self) -> None:
        """They are not to be believed."""
        self._audit.scratch.run("DELETE FROM steps WHERE rowid > ?", self._before)
