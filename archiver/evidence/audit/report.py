"""What an audit found, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_NAMED = 20
"""Findings of a kind that are named; the others are counted."""

MEANINGS: Mapping[str, tuple[str, str]] = {
    "rolled_back": (
        "the ledger is shorter than it was, or the database older than the ledger",
        "bring the newer one back that somebody restored an older copy over; if there is none: `archiver rebuild --catch-up`",
    ),
    "fork": (
        "there are two histories",
        "find out which has the checkpoints that were kept elsewhere, and stop whoever seals the other",
    ),
    "ledger_gap": ("a part of the ledger is gone", "bring it back from a backup or a replica"),
    "root_mismatch": (
        "entries were changed, dropped, inserted or moved",
        "compare the segment before that checkpoint with a backup or a replica",
    ),
    "checkpoint_wrong": (
        "a checkpoint, a claim or a signature is not what the key signed",
        "compare it with a backup, and with checkpoints that were kept elsewhere",
    ),
    "evidence_changed": (
        "a file that explains the evidence is not what the ledger says",
        "bring it back from a backup; of a file of keys compare the fingerprint with the one on paper",
    ),
    "key_unproven": (
        "nothing proves whose key signs",
        "compare its fingerprint with one that you got by another way; if it is right, add it to evidence.trusted",
    ),
    "contradiction": ("an entry contradicts an earlier one", "the earlier one holds; find out who may write to the database"),
    "row_differs": ("the database says something else than the ledger", "the ledger holds; find out who edited the database"),
    "row_missing": (
        "the ledger has a session that the database has not",
        "was the database restored (`archiver rebuild --catch-up`), or a row deleted?",
    ),
    "row_unrecorded": ("the database has something that was never sealed", "was it inserted by hand, or restored from a dump?"),
    "changed": ("a recording is not what was recorded", "`archiver repair`; find out who wrote it"),
    "recording_missing": ("a recording is gone", "`archiver repair`; else bring it back from a backup"),
    "record_changed": ("a record is not what was sealed", "bring it back from a backup; find out who wrote it"),
    "record_missing": ("a record is gone", "bring it back from a backup"),
    "later_schema": ("a newer version of the program wrote this record", "audit with that version"),
    "unrecorded": ("nothing knows of this object", "look at it; if it may stay: `archiver audit --accept KEY`"),
    "hidden": ("a delete marker hides this object", "remove the marker; find out who set it"),
    "versions": ("this object was overwritten", "the first version is the archive's; find out who wrote the others"),
    "unreadable": ("this cannot be read", "the message says why"),
    "unsealed": (
        "something has waited too long to be sealed",
        "does a worker have the key, or does `archiver seal` run? Their logs say why not",
    ),
}
"""Each kind of finding, in the order in which they are told: what it means, and what to do."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: of an object (`key`), or of a session."""

    name: str
    message: str
    key: str | None = None
    session_id: str | None = None
    bot: str | None = None


@dataclass(frozen=True)
class Known:
    """Something that a person, or an earlier check, entered already: no finding."""

    name: str
    message: str
    key: str | None = None


class Findings:
    """Collects them: the first of each kind, and the number of the others."""

    def __init__(self) -> None:
        self._named: dict[str, list[Finding]] = {}
        self.counts: Counter[str] = Counter()
        self.known: list[Known] = []
        self.known_more = 0

    def add(self, name: str, message: str, *, key: str | None = None, session: tuple[str, str] | None = None) -> None:
        """`session`: bot and ID."""
        assert name in MEANINGS
        self.counts[name] += 1
        named = self._named.setdefault(name, [])
        if len(named) < MAX_NAMED:
            bot, session_id = session or (None, None)
            named.append(Finding(name, message, key, session_id, bot))

    def know(self, name: str, message: str, key: str | None = None) -> None:
        """No finding, and worth telling."""
        if sum(known.name == name for known in self.known) < MAX_NAMED:
            self.known.append(Known(name, message, key))
        else:
            self.known_more += 1

    def of(self, name: str) -> list[Finding]:
        """Those of a kind that are named."""
        return self._named.get(name, [])

    def documents(self) -> list[dict[str, Any]]:
        """All that are named, the gravest kinds first. The last of a kind says how many `more` there are."""
        told = []
        for name in MEANINGS:
            for number, finding in enumerate(self.of(name), 1):
                document = {key: value for key, value in vars(finding).items() if value is not None}
                if number == MAX_NAMED and self.counts[name] > MAX_NAMED:
                    document["more"] = self.counts[name] - MAX_NAMED
                told.append(document)
        return told


@dataclass
class Report:
    """All that an audit has to say. `unsealed_seconds`: how long the oldest has waited; `replica_lag`: entries that the copy does
    not have yet; `since`: entries of the checkpoint that was kept elsewhere, if the ledger begins with them; `asked`: SHA-256 and
    length of the object that was asked for, if nobody recorded it.
    """

    deep: bool
    origin: str = ""
    entries: int = 0
    checkpoints: int = 0
    sessions: int = 0
    files: int = 0
    records_read: int = 0
    bytes_read: int = 0
    objects: int = 0
    unsealed_rows: int = 0
    unsealed_seconds: float = 0.0
    to_adopt: int = 0
    pending_objects: int = 0
    quarantined: int = 0
    unfinished: int = 0
    reserved: int = 0
    sampled: str | None = None
    versions_unseen: bool = False
    trust: str = "none"
    keys: list[str] = field(default_factory=list)
    checkpoint: dict[str, Any] | None = None
    replica_lag: int | None = None
    since: int | None = None
    asked: tuple[str, int] | None = None
    findings: Findings = field(default_factory=Findings)

    @property
    def clean(self) -> bool:
        """Nothing was found."""
        return not self.findings.counts

    def document(self) -> dict[str, Any]:
        """As JSON."""
        others = ("findings", "asked", "unsealed_rows", "unsealed_seconds")
        found = {name: value for name, value in vars(self).items() if name not in others}
        return {
            "clean": self.clean,
            **found,
            "unsealed": {"rows": self.unsealed_rows, "seconds": round(self.unsealed_seconds, 3)},
            "known": [{key: value for key, value in vars(each).items() if value is not None} for each in self.findings.known],
            "known_more": self.findings.known_more,
            "findings": self.findings.documents(),
        }
