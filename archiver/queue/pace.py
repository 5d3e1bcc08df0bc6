"""How fast the queue moves, and how long what waits will take at that pace."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from archiver.config import BotSettings, Budget, account_budgets
from archiver.postgres.database import Database
from archiver.queue.reports import SessionCount
from archiver.queue.sql import sql

MINUTE = timedelta(minutes=1)

MIN_SECONDS, MAX_SECONDS = 60.0, 600.0
"""Seconds that a pace is taken over: since the first end of the last ten minutes, but for no less than a minute."""

COUNTED = ("archived", "unavailable", "failed")
"""How work ends; what a person cancels does not tell how fast it goes."""


def _none() -> dict[str, int]:
    return dict.fromkeys(COUNTED, 0)


@dataclass
class Pace:
    """What ended in the last minute and the last ten, and the calls of the last minute, if they are counted one by one: of a bot
    all that were drawn from its account's budget, for whichever bot.
    """

    minute: dict[str, int] = field(default_factory=_none)
    ten_minutes: dict[str, int] = field(default_factory=_none)
    calls: int | None = None
    seconds: float = 0.0
    """Since the first of them."""

    def add(self, state: str, minute: int, ten_minutes: int, seconds: float) -> None:
        """Count these in."""
        self.minute[state] += minute
        self.ten_minutes[state] += ten_minutes
        self.seconds = max(self.seconds, seconds)

    @property
    def per_second(self) -> float:
        """Sessions that end in a second."""
        return sum(self.ten_minutes.values()) / min(max(self.seconds, MIN_SECONDS), MAX_SECONDS)

    def as_document(self) -> dict[str, Any]:
        """For `status --json`."""
        return {"minute": self.minute, "ten_minutes": self.ten_minutes, "api_calls_minute": self.calls}


@dataclass(frozen=True)
class Waiting:
    """Pending sessions of one kind of a bot."""

    bot: str
    kind: str
    sessions: int


@dataclass(frozen=True)
class Forecast:
    """Seconds until nothing waits any more, by bot and for the whole; None: nothing moves, so nobody knows. `left_out`: what
    waits for a person, and so is not counted.
    """

    bots: dict[str, int | None]
    whole: int | None
    left_out: list[dict[str, Any]]


class Paces:
    """The paces of all bots, and what is left of their budgets."""

    def __init__(self, bots: Sequence[BotSettings]) -> None:
        self._budgets = account_budgets(bots)
        self._calls: dict[tuple[str, timedelta], int] = {}
        self.whole = Pace()
        self.bots: dict[str, Pace] = {}

    @classmethod
    async def read(cls, database: Database, bots: Sequence[BotSettings]) -> Paces:
        """As of now."""
        made = cls(bots)
        for row in await database.rows(sql("report/rates")):
            for pace in (made.whole, made.bots.setdefault(row["bot"], Pace())):
                pace.add(row["state"], row["minute"], row["ten_minutes"], row["seconds"])
        budgets = made._budgets
        windows = {
            (budget.key, length)
            for budget in budgets.values()
            if budget.counted
            for length in (MINUTE, *(limit.window for limit in budget.limits))
        }
        budgets_of_windows, lengths = [key for key, _ in windows], [length for _, length in windows]
        for row in await database.rows(sql("report/drawn_calls"), budgets=budgets_of_windows, windows=lengths):
            made._calls[row["key"], row["length"]] = row["calls"]
        counted = {key: calls for (key, length), calls in made._calls.items() if length == MINUTE}
        for name, budget in budgets.items():
            made.bots.setdefault(name, Pace()).calls = counted.get(budget.key)
        made.whole.calls = sum(counted.values()) if {budget.key for budget in budgets.values()} == set(counted) else None
        return made

    def forecast(self, waiting: Sequence[Waiting], *, paused: Collection[str], held: Collection[tuple[str, str]],
                 working: bool) -> Forecast:  # fmt: skip
        """When what waits is done, if all goes on as it does. Bots don't wait for each other. `working`: somebody is alive."""
        left_out: list[dict[str, Any]] = []
        sessions: dict[str, int] = dict.fromkeys([*self._budgets, *self.bots], 0)
        for here in waiting:
            because = (
                "unknown_bot" if here.bot not in self._budgets
                else "paused" if here.bot in paused
                else "held" if (here.bot, here.kind) in held
                else ""
            )  # fmt: skip
            if because:
                left_out.append({"bot": here.bot, "kind": here.kind, "sessions": here.sessions, "because": because})
            sessions[here.bot] = sessions.get(here.bot, 0) + (0 if because else here.sessions)
        stuck = {left["bot"] for left in left_out}
        left: dict[str, int | None] = {}
        for name, count in sessions.items():
            if not count:
                left[name] = None if name in stuck else 0
                continue
            pace = self.bots[name].per_second
            budget = self._budgets[name]
            shared = sum(sessions[each] for each in budget.bots)
            left[name] = math.ceil(max(count / pace, self._at_best(budget, shared))) if pace and working else None
        moving = [left[name] for name, count in sessions.items() if count]
        known = [seconds for seconds in moving if seconds is not None]
        whole = max(known, default=None if left_out else 0) if len(known) == len(moving) else None
        return Forecast(left, whole, left_out)

    def _at_best(self, budget: Budget, sessions: int) -> float:
        """Seconds that the budget makes of so many sessions of a call each. A longer window is no bound while it has room."""
        bounds = [0.0]
        for position, limit in enumerate(budget.limits):
            spent = self._calls.get((budget.key, limit.window), 0)
            if position == 0 or spent + sessions > limit.calls:
                bounds.append(sessions / limit.calls * limit.window.total_seconds())
        return max(bounds)


def waiting_of(counts: Iterable[SessionCount]) -> list[Waiting]:
    """The pending sessions among them."""
    return [Waiting(count.bot, count.kind, count.sessions) for count in counts if count.state == "pending" and count.kind]
