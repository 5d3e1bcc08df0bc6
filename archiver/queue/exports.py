"""What handing out asks of the database: which entries and segments of the ledger prove a session, and which files it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from archiver.postgres.database import Database
from archiver.queue.sql import sql

PAGE = 1000


@dataclass(frozen=True, slots=True)
class ChosenSession:
    """A session, as the database has it. `files`: how many are recorded; `bytes`: theirs."""

    queue_id: int
    bot: str
    session_id: str
    kind: str
    state: str
    reason: str | None
    started_at: datetime | None
    accepted_by: str | None
    accept_reason: str | None
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LedgerStanding:
    """What a ledger of some size has of a session. `seq`: its newest entry there, None if it has none; `edition`: that of the
    record which the entry names, None if it names none; `newer`: since then something else of it was entered, or waits to be.
    """

    queue_id: int
    seq: int | None
    edition: int | None
    newer: bool


@dataclass(frozen=True, slots=True)
class RecordedFileKey:
    """A recorded file: where it lies, and its hash."""

    store_key: str
    sha256: str


class Exports:
    """That of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_sessions(
        self, session_ids: Sequence[str], bots: Sequence[str] = (), kinds: Sequence[str] = ()
    ) -> list[ChosenSession]:
        """The sessions of these IDs, of these bots and kinds (none named: any)."""
        rows = await self._database.rows(
            sql("export/sessions"), session_ids=list(session_ids), bots=list(bots) or None, kinds=list(kinds) or None
        )
        return [ChosenSession(**row) for row in rows]

    async def standing(self, queue_ids: Sequence[int], size: int) -> dict[int, LedgerStanding]:
        """How these sessions stand in the ledger of the first `size` entries, by row."""
        rows = await self._database.rows(sql("export/standing"), queue_ids=list(queue_ids), size=size)
        return {row["queue_id"]: LedgerStanding(**row) for row in rows}

    async def segments(self, first: int, last: int) -> AsyncGenerator[list[tuple[int, int]]]:
        """Which published segments have these entries: the first and last entry of each, in order, page by page."""
        after = -1
        while True:
            rows = await self._database.rows(sql("export/segments"), first=first, last=last, after=after, page=PAGE)
            yield [(row["first"], row["last"]) for row in rows]
            if len(rows) < PAGE:
                return
            after = rows[-1]["first"]

    async def files(self, queue_ids: Sequence[int]) -> list[RecordedFileKey]:
        """Recorded files of these sessions, in the order of their keys."""
        return [RecordedFileKey(**row) for row in await self._database.rows(sql("export/files"), queue_ids=list(queue_ids))]

    async def note(self, queue_ids: Sequence[int], *, actor: str, data: dict[str, Any]) -> None:
        """Write into the history of these sessions that they were handed out."""
        await self._database.rows(sql("export/note"), queue_ids=list(queue_ids), actor=actor, data=data)
