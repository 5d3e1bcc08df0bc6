"""The names of the ledger's objects in a store: all below `evidence/`; numerals have at least 12 digits and sort as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

FOLDER = "evidence/"

FORMAT_KEY = "evidence/FORMAT.md"
SCHEMA_KEY = "evidence/session-v1.schema.json"

DIGITS = 12

_NUMBER = rf"(?:[0-9]{{{DIGITS}}}|[1-9][0-9]{{{DIGITS},18}})"
_NAMES = {
    "claim": re.compile(rf"evidence/claim/(?P<first>{_NUMBER})(?:\.(?P<again>[2-9]|[1-9][0-9]{{1,5}}))?"),
    "segment": re.compile(rf"evidence/ledger/(?P<first>{_NUMBER})-(?P<last>{_NUMBER})\.jsonl"),
    "checkpoint": re.compile(rf"evidence/checkpoint/(?P<first>{_NUMBER})"),
    "signature": re.compile(rf"evidence/checkpoint/(?P<first>{_NUMBER})\.sig"),
    "signers": re.compile(r"evidence/keys/(?P<first>[0-9]{4}|[1-9][0-9]{4,9})\.allowed_signers"),
    "record": re.compile(r"evidence/record/(?P<sha256>[0-9a-f]{64})\.json"),
}

Kind = Literal["claim", "segment", "checkpoint", "signature", "signers", "record", "format", "schema"]


@dataclass(frozen=True, slots=True)
class Named:
    """What a key of the ledger names. `number`: the size of a tree, the index of a segment's first entry, or which key it is;
    `last`: a segment's last entry; `again`: a claim that supersedes one of the same size (2, 3, ...).
    """

    kind: Kind
    number: int = 0
    last: int = 0
    again: int = 1
    sha256: str = ""


def claim_key(size: int, again: int = 1) -> str:
    """Of the claim to what follows the first `size` entries; `again` above 1: one that supersedes those before."""
    return f"evidence/claim/{size:0{DIGITS}}" + (f".{again}" if again > 1 else "")


def segment_key(first: int, last: int) -> str:
    """Of the segment with the entries from index `first` to `last`."""
    return f"evidence/ledger/{first:0{DIGITS}}-{last:0{DIGITS}}.jsonl"


def checkpoint_key(size: int) -> str:
    """Of the checkpoint over the first `size` entries."""
    return f"evidence/checkpoint/{size:0{DIGITS}}"


def signature_key(size: int) -> str:
    """Of that checkpoint's detached signature."""
    return f"{checkpoint_key(size)}.sig"


def signers_key(number: int) -> str:
    """Of the file for `ssh-keygen` that names the archive's first, second... key."""
    return f"evidence/keys/{number:04}.allowed_signers"


def record_fallback_key(sha256: str) -> str:
    """Of a record that could not be kept beside its recordings."""
    return f"evidence/record/{sha256}.json"


def parse(key: str) -> Named | None:
    """What an object of the ledger is; None for a key that none has."""
    if key in (FORMAT_KEY, SCHEMA_KEY):
        return Named("format" if key == FORMAT_KEY else "schema")
    kind: Kind
    for kind, pattern in _NAMES.items():  # type: ignore[assignment]
        if (found := pattern.fullmatch(key)) is not None:
            groups = found.groupdict()
            if kind == "record":
                return Named("record", sha256=groups["sha256"])
            return Named(kind, int(groups["first"]), int(groups.get("last") or 0), int(groups.get("again") or 1))
    return None
