"""How repaired files are recorded. Everything is fenced: a session that moved, or that a worker holds, is left as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from archiver.config import RetrySettings
from archiver.outcome import Archived
from archiver.postgres.database import Database
from archiver.queue.outcome_rows import OutcomeRows
from archiver.queue.reports import SessionFile
from archiver.queue.sql import sql
from archiver.session import Attempt, Session, StoredFile, source_name

PAGE = 1000
"""Failed sessions that one statement looks through."""

NOBODY = 0
"""Stands for a worker in a claim that no worker makes."""


@dataclass(frozen=True, slots=True)
class Refused:
    """What the history says of a file that an attempt, that of `epoch`, could not take."""

    epoch: int
    ordinal: int
    file_name: str
    facts: dict[str, Any]

    @property
    def key(self) -> str | None:
        """Where its body was kept, if it was."""
        return self.text("quarantined")

    @property
    def conflict(self) -> bool:
        """Whether its key held something else."""
        return "stored_sha256" in self.facts

    def text(self, fact: str) -> str | None:
        """A fact that is text, if it is there."""
        found = self.facts.get(fact)
        return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class Damaged:
    """A session with what may have to be repaired. `held`: by a worker; `listed`: how many files the platform named last;
    `conflict`: it failed as a key held something else.
    """

    session: Session
    state: str
    held: bool
    listed: int | None
    message: str | None
    conflict: bool
    files: list[SessionFile]
    refused: list[Refused]


class Repairs:
    """Reads sessions that are to be repaired, and writes what was. `actor` is for the history."""

    def __init__(self, database: Database, retry: RetrySettings, *, actor: str) -> None:
        self._database = database
        self._outcome_rows = OutcomeRows(retry)
        self._actor = actor

    async def read(self, queue_id: int) -> Damaged | None:
        """One session as it is now."""
        row = await self._database.row(sql("repair/sessions"), ids=[queue_id])
        if row is None:
            return None
        session = Session(
            id=row["id"],
            epoch=row["epoch"],
            worker_id=NOBODY,
            bot=row["bot"],
            session_id=row["session_id"],
            kind=row["kind"],
            user_id=row["user_id"],
            archive_date=row["archive_date"],
            claimed_at=row["now"],
            failures=0,
            checks=0,
            crashes=0,
        )
        # Rows of earlier versions have names as they came.
        files = [SessionFile(**file | {"source_name": source_name(file["source_name"])}) for file in row["files"]]
        refused = _refused(row["refused"])
        return Damaged(session, row["state"], row["held"], row["listed"], row["message"], row["conflict"], files, refused)

    async def quarantined(self, *, bot: str | None, kind: str | None) -> AsyncIterator[int]:
        """The rows of failed sessions of which a body lies in quarantine, those that ended first before others."""
        finished_at, after = datetime.min.replace(tzinfo=UTC), 0
        while rows := await self._database.rows(
            sql("repair/failed"), finished_at=finished_at, after=after, bot=bot, kind=kind, page=PAGE
        ):
            for row in rows:
                if row["quarantined"]:
                    yield row["id"]
            finished_at, after = rows[-1]["finished_at"], rows[-1]["id"]

    async def move(self, session: Session, file: SessionFile, *, key: str, file_name: str, source: str) -> bool:
        """The file, from `source`, is whole under `key`. False: the session has moved, nothing was written."""
        row = await self._database.row(
            sql("repair/move"),
            queue_id=session.id,
            epoch=session.epoch,
            from_key=file.store_key,
            sha256=file.sha256,
            store_key=key,
            file_name=file_name,
            source=source,
            actor=self._actor,
        )
        return row is not None

    async def add(self, session: Session, file: StoredFile, *, from_key: str) -> bool:
        """A body that was refused as `from_key` is this file of its failed session. False: as above."""
        row = await self._database.row(
            sql("repair/add"),
            queue_id=session.id,
            epoch=session.epoch,
            file=file.as_row(),
            from_key=from_key,
            actor=self._actor,
        )
        return row is not None

    async def settle(self, session: Session) -> bool:
        """A failed session has all its files: it is archived, as every session is. False: it has moved."""
        async with self._database.transaction() as run:
            if not await run(sql("operate/retry"), ids=[session.id], epochs=[session.epoch], actor=self._actor):
                return False
            (claimed,) = await run(sql("repair/claim"), queue_id=session.id, epoch=session.epoch + 1)
            ours = replace(session, epoch=claimed["epoch"], claimed_at=claimed["claimed_at"])
            terms = self._outcome_rows.parameters([(Attempt(ours), Archived())])
            (settled,) = await run(sql("settle/outcomes"), **terms)
        return bool(settled["state"] == "archived")


def _refused(events: Sequence[dict[str, Any]]) -> list[Refused]:
    found = []
    for event in events:
        facts = event["facts"]
        ordinal, name = facts.get("ordinal"), facts.get("file_name")
        if isinstance(ordinal, int) and isinstance(name, str):
            found.append(Refused(event["epoch"], ordinal, name, facts))
    return found
