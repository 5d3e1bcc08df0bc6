"""How far the platform's listings have been read, so that an interrupted reading goes on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from archiver.errors import DatabaseError
from archiver.postgres.database import DEADLOCK_TRIES, Database, pause_after_deadlock
from archiver.queue.sessions import CallFacts, NewSession, call_columns, columns_of
from archiver.queue.sql import sql


@dataclass(frozen=True)
class Reading:
    """One reading of a stretch of time, as it stands."""

    id: int
    reached: datetime
    """All between here and where it began is in the queue."""
    calls: int
    added: int
    problems: list[dict[str, Any]]
    started_at: datetime
    resumed: bool


class Discoveries:
    """The readings of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, bot: str, purpose: str, start: datetime, end: datetime, *, newest_first: bool, afresh: bool) -> Reading:
        """Begin a reading, or go on with the last one of just this stretch that never ended, unless `afresh`."""
        row = await self._database.row(
            sql("discover/begin"), bot=bot, purpose=purpose, start=start, end=end, newest_first=newest_first, afresh=afresh
        )
        assert row is not None
        return Reading(**dict(row))

    async def enqueue(
        self, bot: str, sessions: Sequence[NewSession], calls: Sequence[CallFacts], *, lists_unanswered: bool, actor: str
    ) -> int:
        """`Queue.enqueue` and `Queue.add_call_facts` in one transaction: a worker that claims one of them at once knows what the
        listing said. Returns how many are new.
        """
        for tries_left in reversed(range(DEADLOCK_TRIES)):
            deadlocked = False
            try:
                async with self._database.transaction() as run:
                    try:
                        (row,) = await run(sql("enqueue/sessions"), **columns_of(sessions), actor=actor)
                        await run(sql("discover/call_facts"), **call_columns(bot, calls), lists_unanswered=lists_unanswered)
                    except asyncpg.DeadlockDetectedError:
                        deadlocked = True
                        raise
            except DatabaseError:
                if deadlocked and tries_left:
                    await pause_after_deadlock()
                    continue
                raise
            added: int = row["added"]
            return added
        raise AssertionError("the last try returns or raises")

    async def advance(
        self,
        reading: Reading,
        reached: datetime,
        *,
        calls: int,
        added: int,
        problems: Sequence[Mapping[str, Any]],
        source: str | None,
    ) -> None:
        """All up to `reached` is in the queue: so many calls in all, and these problems, listed by `source`. May be repeated."""
        await self._database.row(
            sql("discover/advance"),
            reading=reading.id,
            reached=reached,
            calls=calls,
            added=added,
            problems=list(problems),
            source=source,
        )

    async def sources(self, bot: str) -> set[str]:
        """The sources that have listed this bot's calls so far."""
        return {row["source"] for row in await self._database.rows(sql("discover/sources"), bot=bot)}

    async def finish(self, readings: Sequence[int]) -> None:
        """These have been read to their end, and what they were made for is done: nothing is to be gone on with."""
        await self._database.rows(sql("discover/finish"), readings=list(readings))

    async def find_interrupted(self, bot: str, purpose: str, start: datetime, *, newest_first: bool) -> datetime | None:
        """Where the last reading from `start` on ends, if it was interrupted."""
        row = await self._database.row(
            sql("discover/interrupted"), bot=bot, purpose=purpose, start=start, newest_first=newest_first
        )
        return None if row is None else row["to_at"]

    async def watermark(self, bot: str, purpose: str) -> datetime | None:
        """Up to when this bot's calls have been read for this purpose."""
        row = await self._database.row(sql("discover/watermark"), bot=bot, purpose=purpose)
        assert row is not None
        until: datetime | None = row["until"]
        return until
