"""Which archive a database is of, and which store is known to be its own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from archiver.errors import NotMigrated
from archiver.postgres.database import Database
from archiver.queue.sql import sql


@dataclass(frozen=True)
class Identity:
    """One archive. `marked_at`: since when its store is known to have its marker; `url`: where that store was last."""

    archive_id: UUID
    created_at: datetime
    marked_at: datetime | None
    url: str | None
    has_sessions: bool
    has_recordings: bool


class StoringWorker(TypedDict):
    """A living worker, and its storage.url."""

    id: int
    host: str
    pid: int
    store: str


class Identities:
    """That of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self) -> Identity:
        """As it stands."""
        row = await self._database.row(sql("identity/read"))
        if row is None:
            raise NotMigrated("the database does not say which archive it is: archive_identity has no row")
        return Identity(**dict(row))

    async def take(self, archive_id: UUID, created_at: datetime, url: str, *, deliberately: bool = False) -> bool:
        """Be the archive that the marker of the store at `url` names. False, if there are sessions already: then a person has to
        say so, `deliberately`.
        """
        row = await self._database.row(
            sql("identity/take"), archive_id=archive_id, created_at=created_at, url=url, deliberately=deliberately
        )
        return row is not None

    async def mark(self, url: str) -> None:
        """The store at `url` has the marker."""
        await self._database.rows(sql("identity/mark"), url=url)

    async def sample(self, each: int) -> list[tuple[str, int]]:
        """Keys and sizes of recorded files, `each` of the first sessions and of the last."""
        return [(row["store_key"], row["bytes"]) for row in await self._database.rows(sql("identity/sample"), each=each)]

    async def storing_workers(self, but: int | None = None) -> list[StoringWorker]:
        """Living workers, except one."""
        rows = await self._database.rows(sql("identity/workers"), worker_id=but)
        return [StoringWorker(id=row["id"], host=row["host"], pid=row["pid"], store=row["store"]) for row in rows]
