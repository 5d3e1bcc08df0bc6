"""Who has the lock that a connection of ours waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from archiver.errors import ArchiverError
from archiver.postgres.database import Database

LOOK_AFTER_SECONDS = 0.15
"""A statement that takes no longer waited for nobody whom anybody has to hear of."""

LOOK_EVERY_SECONDS = 0.1
"""A tenth of how long it has waited, if that is more."""

REPORT_AFTER_SECONDS = 10.0
"""Whoever waits for longer says so; again when the wait has doubled."""

_BLOCKERS = """
    SELECT pid, coalesce(application_name, '') AS application, coalesce(xact_start, backend_start) AS since,
           coalesce(backend_type = 'autovacuum worker', a.pid IS NOT NULL AND usesysid IS NULL) AS autovacuum
    FROM (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid) blocking LEFT JOIN pg_stat_activity a USING (pid)
    ORDER BY since, pid"""
"""A role without pg_read_all_stats sees neither times nor kinds of others' connections; those of the server have no user."""


@dataclass(frozen=True)
class Holder:
    """A connection. Its transaction began at `since`, if we may know. `pid` is 0 for a transaction that was prepared."""

    pid: int
    application: str
    since: datetime | None
    autovacuum: bool

    def __str__(self) -> str:
        if self.pid == 0:
            return "a prepared transaction (see pg_prepared_xacts)"
        name = "autovacuum" if self.autovacuum else self.application or "without application_name"
        return f"pid {self.pid} ({name}{f', since {self.since:%Y-%m-%d %H:%M:%S} UTC' if self.since else ''})"


class LockHolders:
    """Those that were seen last."""

    def __init__(self, database: Database, on_long_wait: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._on_long_wait = on_long_wait
        self._seen: list[Holder] = []

    @property
    def told(self) -> str:
        """For people."""
        return ", ".join(map(str, self._seen)) or "somebody who is gone since"

    @property
    def only_autovacuum(self) -> bool:
        """Whether nobody else has it."""
        return bool(self._seen) and all(holder.autovacuum for holder in self._seen)

    @asynccontextmanager
    async def noticed(self, pid: int) -> AsyncIterator[None]:
        """Notice whom this connection of the server waits for meanwhile, on a connection that is made if it comes to that."""
        self._seen = []
        looking = asyncio.create_task(self._look(pid), name="lock holders")
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _look(self, pid: int) -> None:
        await asyncio.sleep(LOOK_AFTER_SECONDS)
        with suppress(ArchiverError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # then nobody knows
            _, connection = await self._database.connect_beside_pool()
            try:
                began, report_after = time.monotonic(), REPORT_AFTER_SECONDS
                while True:
                    waited = time.monotonic() - began
                    if seen := [Holder(**dict(row)) for row in await connection.fetch(_BLOCKERS, pid)]:
                        self._seen = seen
                        if waited > report_after:
                            report_after = 2 * waited
                            self._on_long_wait()
                    await asyncio.sleep(max(LOOK_EVERY_SECONDS, waited / 10))
            finally:
                connection.terminate()
