"""What the platform deletes before it can be archived, at the limits in force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from archiver.config import BotSettings, account_budgets
from archiver.postgres.database import Database
from archiver.queue.sql import sql

MAX_READ = 1_000_000
"""Waiting sessions of a bot that are looked at: a second's work. Where there are more, a figure is the least that it can be."""

HINT = (
    "ask the platform's support for higher limits, have an owner or supervisor raise the retention in the app's settings, "
    "and read what is left with `archiver backfill --oldest-first`"
)


@dataclass(frozen=True)
class Deadlines:
    """Of one bot's waiting sessions: `past` are older than the platform keeps recordings, `lost` will be when their turn comes,
    the first of them at `lost_from`. `at_least`: there are more than could be looked at.
    """

    bot: str
    retention: timedelta
    past: int
    lost: int
    lost_from: datetime | None
    at_least: bool

    @property
    def warning(self) -> str:
        """A line for people, without the bot's name; empty where all is in time."""
        more = "at least " if self.at_least else ""
        parts = []
        if self.lost_from is not None:
            what = "recording" if self.lost == 1 else "recordings"
            parts.append(
                f"{more}{self.lost:,} {what} will be deleted by the platform before they can be archived at the limits in "
                f"force, from {self.lost_from:%Y-%m-%d} on"
            )
        if self.past:
            what = "waiting call is" if self.past == 1 else "waiting calls are"
            parts.append(f"{more}{self.past:,} {what} older than source_retention ({self.days:g}d): probably deleted")
        return "; ".join(parts)

    @property
    def days(self) -> float:
        """How long the platform keeps recordings."""
        return self.retention / timedelta(days=1)

    def as_document(self) -> dict[str, Any]:
        """JSON."""
        lost_from = self.lost_from and self.lost_from.isoformat()
        return {"days": self.days, "past": self.past, "lost": self.lost, "lost_from": lost_from, "at_least": self.at_least}


async def read_deadlines(database: Database, bots: Sequence[BotSettings]) -> list[Deadlines]:
    """Of each bot that says how long the platform keeps its recordings; `bots` are all that are configured."""
    found = []
    budgets = account_budgets(bots)
    for bot in bots:
        if bot.source_retention is None:
            continue
        budget = budgets[bot.name]
        call = max((limit.window / limit.calls for limit in budget.limits), default=timedelta(0))
        row = await database.row(
            sql("report/deadlines"),
            bot=bot.name,
            retention=bot.source_retention,
            time_per_call=call,
            max_rows=MAX_READ,
            budget_bots=list(budget.bots),
        )
        assert row is not None
        found.append(Deadlines(bot.name, bot.source_retention, row["past"], row["lost"], row["lost_from"], row["at_least"]))
    return found
