"""The sessions of an account that are not simply archived: any number of them, in memory that does not grow with it."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from archiver.errors import ArchiverError

SETTLED = ("unavailable", "cancelled", "archived")
"""Nothing is to be done about these, but where they have mismatches. Of archived ones those are items that are unlisted, too."""

BATCH = 1000
"""Items that are written and read at once."""

IN_MEMORY = 4 << 20
"""Bytes of items that are kept in memory; more go to a temporary file."""


@dataclass(frozen=True, slots=True)
class Item:
    """A session that is not simply archived. `facts` is JSON: what an auditor asks next."""

    bot: str
    session_id: str
    kind: str
    state: str
    reason: str
    started_at: datetime | None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        """Nothing is to be done about it."""
        return "accepted_at" in self.facts or (self.state in SETTLED and "mismatches" not in self.facts)

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        return {
            "session_id": self.session_id,
            "bot": self.bot,
            "kind": self.kind,
            "state": self.state,
            "reason": self.reason,
            "started_at": self.started_at and self.started_at.isoformat(),
            **self.facts,
        }


class Items:
    """Items in the order in which they came, in a file without a name, which nobody else can open, if they are many. `reasons`
    counts them by state and reason. Its methods raise ArchiverError.
    """

    def __init__(self) -> None:
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.open = 0
        """How many something is to be done about."""
        self._count = 0
        self._last: list[Item] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115  # closed with this
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """All of them, again each time. Nothing is to be added meanwhile."""
        at = 0
        while True:
            with _explained():
                self._file.seek(at)
                try:
                    batch = pickle.load(self._file)  # noqa: S301  # written below
                except EOFError:
                    break
                at = self._file.tell()
            yield from (Item(*each) for each in batch)
        yield from self._last

    def extend(self, items: Iterable[Item]) -> None:
        """Add them."""
        for item in items:
            self._count += 1
            self.reasons[item.state, item.reason] += 1
            self.open += not item.settled
            self._last.append(item)
            if len(self._last) == BATCH:
                self._write()

    def _write(self) -> None:
        rows = [(i.bot, i.session_id, i.kind, i.state, i.reason, i.started_at, i.facts) for i in self._last]
        with _explained():
            self._file.seek(0, 2)
            pickle.dump(rows, self._file, pickle.HIGHEST_PROTOCOL)
        self._last = []


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiverError(
            f"the account cannot be kept in a temporary file until it is printed: {error.strerror}",
            hint="free disk space, or set TMPDIR to a folder that has some",
        ) from None
