"""What the ledger says of one session: its entries, and what waits to become one, put together in order. A union, never the last
word: what was there once stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Pair = tuple[int, bytes]
"""Place and SHA-256 of a file of audio."""

OPEN = frozenset({"pending", "claimed"})
ENDED = frozenset({"archived", "unavailable", "failed", "cancelled"})

_AFTER_UNAVAILABLE = frozenset({"unavailable", "archived", "failed"})
"""How a recheck may end."""


@dataclass(frozen=True, slots=True)
class Step:
    """An entry, or an outbox row. `files`: None where `count` alone is known. `what` names it for people."""

    what: str
    event: str
    state: str
    files: frozenset[Pair] | None
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    """What the database says of a session."""

    state: str
    files: frozenset[Pair]


class Fold:
    """Takes the steps of one session in order. `state`: how the session is by then; None before there is one."""

    def __init__(self) -> None:
        self.state: str | None = None
        self.files: set[Pair] = set()
        self.count = 0
        self.damaged = False
        self.last = ""

    def take(self, step: Step) -> Iterator[str]:
        """What is wrong with this step, after those before it."""
        if (wrong := self._wrong_event(step)) is not None:
            yield f"{step.what} says {step.event} ({step.state}), {wrong}"
        if step.files is not None and not self.files <= step.files:
            yield f"{step.what} lacks a file that an earlier one has, or has another hash of it"
        elif max(step.count, len(step.files or ())) < self.count:
            yield f"{step.what} has fewer files than an earlier one"
        self.files.update(step.files or ())
        self.count = max(self.count, step.count, len(self.files))
        self.damaged = step.event == "damaged" or (self.damaged and step.event != "repaired")
        self.state = step.state
        self.last = step.what

    def _wrong_event(self, step: Step) -> str | None:
        before = "where nothing was known of it" if self.state is None else f"after {self.last} left it {self.state}"
        match step.event:
            case "settled":
                goes_on = self.state is None or self.state in OPEN
                fits = step.state in ENDED and (goes_on or (self.state == "unavailable" and step.state in _AFTER_UNAVAILABLE))
            case "adopted":
                fits = step.state in ENDED and self.state is None
            case "reopened":
                fits = step.state in OPEN and self.state not in OPEN
            case "accepted":
                fits = step.state in ("failed", "archived") and self.state in (None, step.state)
            case "described" | "unaccepted":
                fits = step.state in ENDED and self.state in (None, step.state)
            case _:  # damaged, repaired: of whatever has files; a worker may hold it
                fits = self.state in (None, step.state) or {self.state, step.state} <= OPEN
        return None if fits else before


def compare(fold: Fold, row: Row) -> Iterator[tuple[str, str]]:
    """How a row differs from what the ledger says: names of findings, and what is different."""
    assert fold.state is not None
    if row.state != fold.state and not (row.state in OPEN and fold.state in OPEN):
        yield "row_differs", f"the database says {row.state}, and {fold.last} {fold.state}"
    if not fold.files <= row.files:
        yield "row_differs", f"the database lacks a file that {fold.last} has, or has another hash of it"
    elif row.state in ENDED and len(row.files) != fold.count:
        if len(row.files) > fold.count:
            yield "row_unrecorded", f"the database has a file that {fold.last} does not have"
        else:
            yield "row_differs", f"the database has {len(row.files)} files, and {fold.last} {fold.count}"
