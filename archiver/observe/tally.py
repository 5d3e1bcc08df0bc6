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
    api_calls: Counter[str] = field(default_factory=Counter)
    """Calls to the platform, by bot, whatever came of them."""
    lost: int = 0
    """Sessions whose outcome was not ours to write any more."""
    leases_lost: int = 0
    """How often a worker lost its lease."""
    config_reload_successful: bool | None = None
    """Whether the configuration that was read last is in force; of several processes, in all of them."""
    config_reloaded_at: float | None = None
    """When one was put in force last, in seconds since 1970; of several processes, in the last of them."""

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
            "api_calls": self.api_calls,
            "lost": self.lost,
            "leases_lost": self.leases_lost,
            "received": transfers.received,
            "durations": {bot: [durations.counts, durations.seconds] for bot, durations in transfers.durations.items()},
            "running": [[transfer.bot, transfer.received, transfer.total] for transfer in transfers.running],
            "config_reload": [self.config_reload_successful, self.config_reloaded_at],
        }

    def ended_only(self) -> Self:
        """The same without what is true of the present moment: what a worker leaves that has ended."""
        left = type(self)()
        left.add(self.as_json() | {"running": [], "config_reload": [None, None]})
        return left

    @classmethod
    def sum_of(cls, tallies: Iterable[Tally]) -> Self:
        """What several workers have done together, and what is true of them now."""
        whole = cls()
        for tally in tallies:
            whole.add(tally.as_json())
        return whole

    def add(self, told: Mapping[str, Any]) -> None:
        """What `as_json` of another worker's has."""
        transfers = self.transfers
        for name, count in told["ended"].items():
            self.ended[name] = self.ended.get(name, 0) + count
        for *labels, count in told["attempts"]:
            self.attempts[labels[0], labels[1], labels[2]] += count
        self.stored.update(told["stored"])
        self.stored_bytes.update(told["stored_bytes"])
        self.api_calls.update(told["api_calls"])
        self.lost += told["lost"]
        self.leases_lost += told["leases_lost"]
        transfers.received.update(told["received"])
        for bot, (counts, seconds) in told["durations"].items():
            transfers.durations.setdefault(bot, Durations()).merge(counts, seconds)
        for bot, received, total in told["running"]:
            transfers.running[Transfer(bot, "", "", total=total, received=received)] = None
        successful, at = told["config_reload"]
        if at is not None:
            self.config_reload_successful = successful and self.config_reload_successful is not False
            self.config_reloaded_at = at if self.config_reloaded_at is None else min(at, self.config_reloaded_at)
