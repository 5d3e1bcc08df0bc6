"""What a migration costs those who go on: how long producers' statements take, and how long anybody waits for a lock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from benchmarks.upgrade.releases import MARK

PRODUCER = "producer"
"""The application_name of producers. Workers, and migrate, have the archiver's."""

LOOK_EVERY_SECONDS = 0.01

_LOOK = f"""
    SELECT pid, application_name = '{PRODUCER}' AS produces, query ~ 'LOCK TABLE archive_migrations|{MARK}' AS migrates,
           extract(epoch FROM clock_timestamp() - query_start)::float AS running, l.waited
    FROM pg_stat_activity a LEFT JOIN LATERAL (
        SELECT extract(epoch FROM clock_timestamp() - waitstart)::float AS waited FROM pg_locks l
        WHERE l.pid = a.pid AND NOT granted AND a.wait_event_type = 'Lock' LIMIT 1) l ON true
    WHERE datname = current_database() AND state = 'active' AND application_name IN ('{PRODUCER}', 'archiver')"""

_INSERT = """
    INSERT INTO archive_queue (bot, session_id) SELECT $1, id FROM unnest($2::text[]) AS id ON CONFLICT DO NOTHING"""


class Waits:
    """The longest so far, in seconds, each as of a look every LOOK_EVERY_SECONDS; of a producer's statement, whole."""

    def __init__(self) -> None:
        self.looks = 0
        self.producers_lock = self.workers_lock = 0.0
        """For a lock."""
        self.workers_statement = self.producers_statement = 0.0
        self.inserted = 0
        self._migrating: set[int] = set()

    @asynccontextmanager
    async def watched(self, url: str) -> AsyncIterator[None]:
        """Look all the time."""
        connection = await asyncpg.connect(url, server_settings={"application_name": "observer", "jit": "off"})
        looking = asyncio.create_task(self._look(connection))
        try:
            yield
        finally:
            if looking.done():
                looking.result()
            looking.cancel()
            await asyncio.wait([looking])
            connection.terminate()

    async def _look(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        while True:
            for row in await connection.fetch(_LOOK):
                waited, running = row["waited"] or 0.0, row["running"] or 0.0
                if row["migrates"]:
                    self._migrating.add(row["pid"])
                if row["produces"]:
                    self.producers_lock = max(self.producers_lock, waited)
                elif row["pid"] not in self._migrating:
                    self.workers_lock = max(self.workers_lock, waited)
                    self.workers_statement = max(self.workers_statement, running)
            self.looks += 1
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    async def produce(self, url: str, ids: list[str], *, bot: str, pause: float, rows: int = 1) -> None:
        """Insert these sessions as other programs do, some at a time, each in a statement of its own."""
        connection = await asyncpg.connect(url, server_settings={"application_name": PRODUCER})
        try:
            for first in range(0, len(ids), rows):
                began = time.monotonic()
                await connection.execute(_INSERT, bot, ids[first : first + rows])
                self.producers_statement = max(self.producers_statement, time.monotonic() - began)
                self.inserted += len(ids[first : first + rows])
                await asyncio.sleep(pause)
        finally:
            await connection.close()
