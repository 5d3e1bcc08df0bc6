"""What a rebuild found, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_NAMED = 20
"""Losses of a kind that are named; the others are counted."""

LOSSES = {
    "ledger": "the ledger goes on, and that part cannot be read or proven",
    "key": "nobody has the key that signed the ledger, and another one signs from now on",
    "record": "a session's record is gone or changed",
    "row": "the database takes no such row",
}
"""What may be missing, for good unless a backup of the store has it."""


@dataclass(frozen=True)
class Loss:
    """Something that the ledger has, and nobody else any more."""

    kind: str
    message: str
    key: str | None = None
    session_id: str | None = None
    bot: str | None = None


@dataclass
class Rebuilt:
    """`entries` of the ledger that is the database's now; `sessions` and `files` that were put in; `pending`: those of them that
    wait to be archived; `enqueued`: of recordings that nobody recorded; `left_alone`: objects of which no session is known;
    `unnamed`: entries about sessions whose IDs nobody has any more; `dropped`: rows that waited to be sealed, and will not be;
    `given_up`: the size that the ledger had, where that is more; `sealed`: an entry says all this.
    """

    origin: str = ""
    entries: int = 0
    sessions: int = 0
    files: int = 0
    pending: int = 0
    enqueued: int = 0
    left_alone: int = 0
    unnamed: int = 0
    dropped: int = 0
    given_up: int = 0
    sealed: bool = False
    losses: dict[str, list[Loss]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """What an audit would find besides, and keeps nobody from anything."""

    def lose(self, kind: str, message: str, *, key: str | None = None, session: tuple[str, str] | None = None) -> None:
        """`session`: bot and ID."""
        self.counts[kind] += 1
        named = self.losses.setdefault(kind, [])
        if len(named) < MAX_NAMED:
            bot, session_id = session or (None, None)
            named.append(Loss(kind, message, key, session_id, bot))

    @property
    def lost(self) -> int:
        """Sessions that could not be put in as they were."""
        return self.counts["record"] + self.counts["row"]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        found = {name: value for name, value in vars(self).items() if name not in ("losses", "counts")}
        losses = [
            {key: value for key, value in vars(loss).items() if value is not None}
            for kind in LOSSES
            for loss in self.losses.get(kind, [])
        ]
        return {**found, "losses": losses, "lost": dict(self.counts)}
