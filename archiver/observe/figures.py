"""What is true of the whole archive, whichever process says it: read from the database by `queue.figures`, shown by `metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class BudgetFigures:
    """`remaining`: the part that is left of the fullest window; None where there is no limit. `blocked`: seconds for which the
    platform has it blocked. `wait`: seconds until there is one more call, where a window but the shortest is spent.
    """

    remaining: float | None
    blocked: float
    wait: float


@dataclass(frozen=True, slots=True)
class ConfiguredFigures:
    """What only a process knows that has the bot in its configuration; by whom it was read last, at `at` (Unix time). `budgets`
    has "account" and "sessions". `source_deadline`: seconds; None where nothing waits, or nothing is known.
    """

    at: float
    budgets: Mapping[str, BudgetFigures]
    source_deadline: float | None


@dataclass(frozen=True, slots=True)
class BotFigures:
    """Of one bot. Times are Unix times, what is how long ago or ahead are seconds; None: there is none. `gap_days` and
    `oldest_gap` are None of a bot that was never accounted for.
    """

    sessions: Mapping[str, int]
    paused: bool
    oldest_ready: float
    last_archived: float | None
    calls_per_recording: float | None
    gap_days: int | None = None
    oldest_gap: float | None = None
    last_complete_night: float | None = None
    configured: ConfiguredFigures | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A kind of a bot that no worker claims."""

    bot: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Notifications:
    """That wait to be sent, and the seconds that the first of them has waited."""

    waiting: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Figures:
    """As they were read at `at`, Unix time by the database's clock. Seconds that are None: nothing is recorded, or no ledger was
    begun.
    """

    at: float
    workers: int
    schema_version: int
    unsealed: float | None
    oldest_verification: float | None
    damaged_sessions: int
    holds: tuple[Hold, ...] = ()
    bots: Mapping[str, BotFigures] = field(default_factory=dict)
    notifications: Notifications | None = None

    def as_document(self) -> dict[str, Any]:
        """JSON, which `of` reads."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError, TypeError, ValueError or AttributeError for what is no such document: that of a later program may have
        more, which is passed over.
        """
        told = document.get("notifications")
        return cls(
            at=float(document["at"]),
            workers=int(document["workers"]),
            schema_version=int(document["schema_version"]),
            unsealed=_number(document["unsealed"]),
            oldest_verification=_number(document["oldest_verification"]),
            damaged_sessions=int(document["damaged_sessions"]),
            holds=tuple(Hold(str(one["bot"]), str(one["kind"]), str(one["reason"])) for one in document["holds"]),
            bots={str(name): _bot(bot) for name, bot in document["bots"].items()},
            notifications=None if told is None else Notifications(int(told["waiting"]), float(told["oldest"])),
        )


def _bot(document: Mapping[str, Any]) -> BotFigures:
    gap_days = document["gap_days"]
    configured = document["configured"]
    return BotFigures(
        sessions={str(state): int(count) for state, count in document["sessions"].items()},
        paused=bool(document["paused"]),
        oldest_ready=float(document["oldest_ready"]),
        last_archived=_number(document["last_archived"]),
        calls_per_recording=_number(document["calls_per_recording"]),
        gap_days=None if gap_days is None else int(gap_days),
        oldest_gap=_number(document["oldest_gap"]),
        last_complete_night=_number(document["last_complete_night"]),
        configured=None if configured is None else _configured(configured),
    )


def _configured(document: Mapping[str, Any]) -> ConfiguredFigures:
    budgets = {
        str(name): BudgetFigures(_number(one["remaining"]), float(one["blocked"]), float(one["wait"]))
        for name, one in document["budgets"].items()
    }
    return ConfiguredFigures(float(document["at"]), budgets, _number(document["source_deadline"]))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
