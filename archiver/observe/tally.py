"""What a worker has done since it started: for progress, for its closing line and for its metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from archiver.observe.transfers import Transfers


@dataclass
class Tally:
    """Counts, by bot where it matters. `transfers`: those running now, and the bytes received."""

    transfers: Transfers = field(default_factory=Transfers)
    ended: dict[str, int] = field(default_factory=dict)
    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Settled attempts, by bot, state of the session after it, and reason (or '')."""
    stored: Counter[str] = field(default_factory=Counter)
    """Files stored and settled, by bot."""
    stored_bytes: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    queue: dict[tuple[str, str], int] | None = None
    """Sessions of the whole archive by bot and state, as of the last look; None before the first."""
    unsealed_seconds: float | None = None
    """For how long what happened first has waited to be sealed, as of the last look; None in a worker that seals nothing."""
    damaged_sessions: int | None = None
    """Sessions of which `verify` found files wrong that nobody mended or accepted, as of the last look; None before the first."""
    oldest_verification_seconds: float | None = None
    """How long ago the recording was read, or archived, that was not read for longest, as of the last look; None where nothing is
    recorded.
    """

    @property
    def files(self) -> int:
        """Files stored and settled, of all bots."""
        return self.stored.total()
