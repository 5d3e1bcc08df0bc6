"""The roll-up of the queue: how many sessions, files, bytes and seconds there are by bot, UTC day and state.

The database counts what each statement changes (`archive_rollup_changes`); workers fold that into the roll-up (`archive_rollup`).
Both together, the view `archive_counts`, are exact at any time; `recount` proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from archiver.postgres.database import Database
from archiver.queue.sql import sql

MAX_CHANGES = 10_000
"""Changes that one statement folds."""

ROUNDS = 20
"""Such statements one after the other: more is left to the next look."""

RECOUNT_TIMEOUT = 3600.0
"""Seconds to read every session and every file: some ten for five million."""


@dataclass(frozen=True, slots=True)
class CountDifference:
    """By how much the counts of one key were too low (or, negative, too high). `priority` is empty for what has ended."""

    bot: str
    kind: str
    priority: str
    day: date
    state: str
    reason: str
    sessions: int
    accepted: int
    rechecks: int
    calls: int
    files: int
    bytes: int
    seconds: float


class Counts:
    """What keeps the roll-up."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fold(self) -> int:
        """Fold what was changed into the roll-up, ROUNDS times MAX_CHANGES at most; returns how many changes that were. Any
        number of workers may do so at once.
        """
        folded = 0
        for _ in range(ROUNDS):
            (row,) = await self._database.rows(sql("counts/fold"), max_changes=MAX_CHANGES)
            changes: int = row["changes"]
            folded += changes
            if changes < MAX_CHANGES:
                break
        return folded

    async def by_bot_and_state(self) -> dict[tuple[str, str], int]:
        """Sessions by bot and state, of all days."""
        rows = await self._database.rows(sql("counts/by_bot_and_state"))
        return {(row["bot"], row["state"]): row["sessions"] for row in rows}

    async def remove_empty(self) -> None:
        """Remove rows that count nothing any more."""
        await self._database.rows(sql("counts/remove_empty"))

    async def recount(self, *, mend: bool) -> list[CountDifference]:
        """Count every session and file again; returns where the counts differed, and with `mend` corrects them. Nobody waits for
        it: what changes meanwhile counts itself. Two who mend at once would do it twice: see Database.alone.
        """
        statement = sql("counts/recount")
        async with self._database.connection() as connection:
            rows = await connection.fetch(statement.text, *statement.arguments({"mend": mend}), timeout=RECOUNT_TIMEOUT)
        return [CountDifference(**row) for row in rows]
