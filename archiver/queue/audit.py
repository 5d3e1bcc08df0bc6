"""What an audit reads of the database: all of it as it was at one moment, row by row."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from archiver.postgres.database import Database
from archiver.postgres.statements import Statement
from archiver.queue.ledger import OutboxRow
from archiver.queue.sql import sql

PAGE = 200
"""Rows on their way at a time: a session may have some hundred kilobytes of metadata and files."""

ALL = (-(2**63), 2**63 - 1)


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """See `ledger.Head`."""

    origin: str
    public_key: str
    size: int
    root: bytes
    published: int


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session, and its recorded files: every column, as JSON."""

    id: int
    session: Mapping[str, Any]
    files: list[Mapping[str, Any]]
    to_adopt: bool


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A batch that the store may not have yet."""

    first: int
    last: int
    checkpoint: bytes
    lines: bytes
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Salted:
    """Whose hash an entry has."""

    seq: int
    salt: bytes
    bot: str
    session_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Stray:
    """A recorded file that belongs to no session's row."""

    bot: str
    session_id: str
    store_key: str


class Snapshot:
    """The database at one moment: `now`, by its own clock. `head`: None where no ledger is begun."""

    def __init__(self, connection: Any, now: datetime, head: LedgerHead | None) -> None:
        self._connection = connection
        self.now = now
        self.head = head

    async def sessions(self) -> AsyncIterator[SessionRow]:
        """All of them, in the order of their rows."""
        first, last = ALL
        async for row in self._stream(sql("audit/sessions"), first=first, last=last):
            yield SessionRow(**row)

    async def outbox(self) -> AsyncIterator[OutboxRow]:
        """What waits to be sealed, in order."""
        async for row in self._stream(sql("audit/outbox")):
            yield OutboxRow(**row)

    async def salts(self) -> AsyncIterator[Salted]:
        """Whose hashes the ledger has, in its order."""
        async for row in self._stream(sql("audit/salts")):
            yield Salted(**row)

    async def strays(self) -> AsyncIterator[Stray]:
        """Recorded files that belong to no session's row."""
        async for row in self._stream(sql("audit/strays")):
            yield Stray(**row)

    async def unpublished(self) -> Unpublished | None:
        """The batch that the store may not have yet."""
        row = await self._connection.fetchrow(sql("audit/unpublished").text)
        return None if row is None else Unpublished(**row)

    async def _stream(self, statement: Statement, **parameters: Any) -> AsyncIterator[asyncpg.Record]:
        async for row in self._connection.cursor(statement.text, *statement.arguments(parameters), prefetch=PAGE):
            yield row


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[Snapshot]:
    """The database as it is now, for as long as this, whatever happens meanwhile. Nothing can be written."""
    async with database.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(sql("audit/head").text)
        assert row is not None
        yield Snapshot(connection, row["now"], _head_of(row))


def _head_of(row: asyncpg.Record) -> LedgerHead | None:
    if row["origin"] is None:
        return None
    return LedgerHead(**{name: row[name] for name in LedgerHead.__dataclass_fields__})


class AuditQueries:
    """What an audit asks besides, of the database as it is then."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self) -> LedgerHead | None:
        """The ledger now."""
        row = await self._database.row(sql("audit/head"))
        assert row is not None
        return _head_of(row)

    async def session(self, queue_id: int) -> SessionRow | None:
        """One session now."""
        row = await self._database.row(sql("audit/sessions"), first=queue_id, last=queue_id)
        return None if row is None else SessionRow(**row)

    async def sessions_of(self, first: int, last: int) -> AsyncIterator[int]:
        """The rows of the sessions that these entries are about, as the database has it."""
        after = 0
        while True:
            rows = await self._database.rows(sql("audit/sessions_of"), first=first, last=last, after=after, page=1000)
            for row in rows:
                yield row["queue_id"]
            if len(rows) < 1000:
                return
            after = rows[-1]["queue_id"]
