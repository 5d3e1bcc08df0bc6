"""What a worker has done since it started: for progress, for its closing line and for its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from archiver.observe.transfers import Durations, Transfer, Transfers


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

    def as_json(self) -> dict[str, Any]:
        """All of it, for another process that adds it to its own."""
        transfers = self.transfers
        return {
            "ended": self.ended,
            "attempts": [[*labels, count] for labels, count in self.attempts.items()],
            "stored": self.stored,
            "stored_bytes": self.stored_bytes,
            "lost": self.lost,
            "received": transfers.received,
            "durations": {bot: [durations.counts, durations.seconds] for bot, durations in transfers.durations.items()},
            "running": [[transfer.bot, transfer.received, transfer.total] for transfer in transfers.running],
            "queue": None if self.queue is None else [[*labels, count] for labels, count in self.queue.items()],
            "unsealed_seconds": self.unsealed_seconds,
            "damaged_sessions": self.damaged_sessions,
            "oldest_verification_seconds": self.oldest_verification_seconds,
        }

    def ended_only(self) -> Self:
        """The same without what is true of the present moment: what a worker leaves that has ended."""
        left = type(self)()
        left.add(self.as_json() | {"running": [], "queue": None, "unsealed_seconds": None, "damaged_sessions": None}
                 | {"oldest_verification_seconds": None})  # fmt: skip
        return left

    @classmethod
    def sum_of(cls, tallies: Iterable[Tally]) -> Self:
        """What several workers have done together, and what is true of them now."""
        whole = cls()
        for tally in tallies:
            whole.add(tally.as_json())
        return whole

    def add(self, told: Mapping[str, Any]) -> None:
        """What `as_json` of another worker's has. Of the whole archive each has its own last look: the first one stands."""
        transfers = self.transfers
        for name, count in told["ended"].items():
            self.ended[name] = self.ended.get(name, 0) + count
        for *labels, count in told["attempts"]:
            self.attempts[labels[0], labels[1], labels[2]] += count
        self.stored.update(told["stored"])
        self.stored_bytes.update(told["stored_bytes"])
        self.lost += told["lost"]
        transfers.received.update(told["received"])
        for bot, (counts, seconds) in told["durations"].items():
            transfers.durations.setdefault(bot, Durations()).merge(counts, seconds)
        for bot, received, total in told["running"]:
            transfers.running[Transfer(bot, "", "", total=total, received=received)] = None
        if self.queue is None and told["queue"] is not None:
            self.queue = {(bot, state): count for bot, state, count in told["queue"]}
        for name in ("unsealed_seconds", "damaged_sessions", "oldest_verification_seconds"):
            if getattr(self, name) is None:
                setattr(self, name, told[name])
