"""What a worker has done since it started: for progress, for its closing line and for its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from archiver.observe.transfers import Transfers


@dataclass
class Tally:
    """By bot, where it matters. `transfers` is what is on its way now, and how many bytes came in."""

    transfers: Transfers = field(default_factory=Transfers)
    ended: dict[str, int] = field(default_factory=dict)
    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Attempts that ended and are written down: by bot, by the state that the session is in now, by the reason for it or ''."""
    stored: Counter[str] = field(default_factory=Counter)
    """Files that were stored, and are written down, by bot."""
    stored_bytes: Counter[str] = field(default_factory=Counter)
    lost: int = 0

    @property
    def files(self) -> int:
        """Files that were stored and are written down."""
        return self.stored.total()
