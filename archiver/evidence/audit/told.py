"""What is said of a session, in one form whoever says it: the database, an outbox row, a record."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from archiver.evidence.audit.fold import Pair
from archiver.evidence.canonical import canonical
from archiver.evidence.fields import Fields
from archiver.evidence.sidecar import (
    Acceptance,
    Record,
    RecordedFile,
    accepted_in,
    described_in,
    files_of,
    without_secrets,
)

_PAIR = struct.Struct(">I32s")

_FILE = tuple(field.name for field in fields(RecordedFile))
_SAID = (
    "state", "reason", "detail", "user_id", "priority", "started_at", "ended_at", "listed_at", "archive_date", "enqueued_at",
    "finished_at", "metadata", "call", "accepted",
)  # fmt: skip
_A_FILE = "file "
_FIXED = ("enqueued_at", "archive_date", "metadata")
"""What never changes of a session; nor do its files."""
_MAY_CHANGE = {
    "described": frozenset({"started_at", "ended_at", "listed_at", "user_id", "call"}),
    "accepted": frozenset({"accepted"}),
    "unaccepted": frozenset({"accepted"}),
    "damaged": frozenset[str](),
    "repaired": frozenset[str](),
}
"""What each of these events may change. A repair may move files, and add some."""


@dataclass(frozen=True, slots=True)
class Told:
    """`said`: each column, and the files; in the same form from wherever it comes. `left_out`: columns that were too large for a
    record.
    """

    said: Mapping[str, Any]
    files: Sequence[RecordedFile]
    left_out: frozenset[str] = frozenset()

    @property
    def pairs(self) -> frozenset[Pair]:
        """Place and hash of its audio."""
        return frozenset((file.ordinal, bytes.fromhex(file.sha256)) for file in self.files if file.ordinal > 0)

    @property
    def digest(self) -> bytes:
        """Of all that is said. Of the same that is said elsewhere it is the same."""
        return hashlib.sha256(canonical([self.said, [_columns(file) for file in self.files]])).digest()


def of_database(session: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> Told:
    """What a row, or an outbox row, says. Raises ValueError where it is not what the program writes there."""
    given = Fields(session, "the session")
    said = described_in(given)
    said["detail"] = without_secrets(said["detail"])
    said["accepted"] = accepted_in(given)
    if said["accepted"] is None and (given.all.get("accepted_by"), given.all.get("accept_reason")) != (None, None):
        raise ValueError("somebody answers for it, and nobody knows since when")
    return Told({name: said[name] for name in _SAID}, files_of(Fields({"files": files}, "the session")))


def of_record(record: Record) -> Told:
    """What a record says."""
    said = {name: getattr(record, name) for name in _SAID}
    # An older version may have hidden less.
    said["detail"] = without_secrets(record.detail)
    if isinstance(record.accepted, Acceptance):
        because = without_secrets(record.accepted.because)
        said["accepted"] = {"at": record.accepted.at, "by": record.accepted.by, "because": because}
    return Told(said, record.files, frozenset(record.left_out))


def differing(told: Told, other: Told) -> list[str]:
    """The names of the columns in which they differ, those apart that one of them left out."""
    left_out = told.left_out | other.left_out
    found = [name for name in _SAID if name not in left_out and canonical(told.said[name]) != canonical(other.said[name])]
    without = {"source_name"} if "source_names" in left_out else set()
    if len(told.files) != len(other.files):
        return [*found, "files"]
    for one, two in zip(told.files, other.files, strict=True):
        names = (name for name in _FILE if name not in without and getattr(one, name) != getattr(two, name))
        found += [f"{name} of file {one.ordinal}" for name in names]
    return found


def fixed_of(told: Told) -> dict[str, str]:
    """What may never change of a session, each as a hash, by its name."""
    found = {name: hashlib.sha256(canonical(told.said[name])).hexdigest() for name in _FIXED if name not in told.left_out}
    found |= {f"the hash of {file.store_key}": file.sha256 for file in told.files}
    return found | {f"{_A_FILE}{file.ordinal} ({file.sha256[:16]})": file.sha256 for file in told.files}


def changed_for_ever(earlier: Mapping[str, str], later: Mapping[str, str]) -> list[str]:
    """The names of what may never change, and did: also of files that are there no more."""
    gone = [name for name in earlier if name.startswith(_A_FILE) and name not in later]
    return gone + [name for name, value in later.items() if earlier.get(name, value) != value]


def changed_by(event: str, before: Told, after: Told) -> list[str]:
    """The names of what an event changed, of one record and the one right before it, that such an event never does."""
    may = _MAY_CHANGE.get(event)
    if may is None:
        return []
    found = [name for name in differing(before, after) if name not in may]
    moved = ("files", "store_key of ", "file_name of ") if event == "repaired" else ()
    return [name for name in found if not name.startswith(moved)]


def _columns(file: RecordedFile) -> list[Any]:
    return [getattr(file, name) for name in _FILE]


def packed(pairs: Iterable[Pair]) -> bytes:
    """Pairs as the audit's notes have them."""
    return b"".join(_PAIR.pack(*pair) for pair in sorted(pairs))


def unpacked(data: bytes) -> frozenset[Pair]:
    """And back."""
    found: Iterator[Any] = _PAIR.iter_unpack(data)
    return frozenset(found)


def name_of(bot: str, session_id: str, kind: str) -> bytes:
    """What a session is called here."""
    return canonical([bot, session_id, kind])


def session_of(name: bytes) -> tuple[str, str]:
    """Bot and ID of a session that is called so."""
    bot, session_id, _ = json.loads(name)
    return bot, session_id
