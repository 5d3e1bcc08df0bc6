"""What the tests of the queue share: rows put in, looked at and moved in time by plain SQL."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from archiver.config import BotSettings
from archiver.errors import LeaseLost
from archiver.outcome import Outcome
from archiver.postgres.database import Database
from archiver.queue.operators import Operators
from archiver.queue.quota import Quota
from archiver.queue.reports import Reports
from archiver.queue.sessions import Queue
from archiver.session import Attempt, Session, State, StoredFile

MINUTE = timedelta(minutes=1)


class QueueHarness:
    """A queue with bots, workers and rows of the test's making."""

    def __init__(self, database: Database, queue: Queue) -> None:
        self.database = database
        self.queue = queue
        self.operators = Operators(database)
        self.reports = Reports(database)

    async def fetch(self, query: str, *args: Any) -> list[dict[str, Any]]:
        async with self.database.connection() as connection:
            return [dict(row) for row in await connection.fetch(query, *args)]

    async def value(self, query: str, *args: Any) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(query, *args)

    async def add(self, *ids: str, bot: str | None = "bot", **columns: Any) -> None:
        """One INSERT of plain SQL, as another program would write it."""
        names = ["bot", "session_id", *columns]
        groups = [f"({', '.join(f'${row * len(names) + n + 1}' for n in range(len(names)))})" for row in range(len(ids))]
        values = [value for one in ids for value in (bot, one, *columns.values())]
        await self.fetch(
            f"INSERT INTO archive_queue ({', '.join(names)}) VALUES {', '.join(groups)} ON CONFLICT DO NOTHING", *values
        )

    async def row(self, session_id: str) -> dict[str, Any]:
        (row,) = await self.fetch("SELECT * FROM archive_queue WHERE session_id = $1", session_id)
        return row

    async def states(self) -> dict[str, int]:
        return Counter(row["state"] for row in await self.fetch("SELECT state FROM archive_sessions"))

    async def history(self, session_id: str) -> list[str]:
        (story,) = await self.reports.find_session(session_id, None, None)
        return [event["event"] for event in story.events]

    async def worker(self, *bots: str, lease: timedelta = MINUTE) -> int:
        return await self.queue.start_worker(host="here", pid=1, version="0", lease=lease, bots=bots or ["bot"])

    async def expire(self, worker_id: int) -> None:
        """As if the worker had been silent for longer than its lease."""
        await self.fetch("UPDATE archive_workers SET expires_at = now() - interval '1 second' WHERE id = $1", worker_id)

    async def make_due(self) -> None:
        """As if every delay had passed."""
        await self.fetch("UPDATE archive_queue SET run_at = now() - interval '1 second' WHERE state = 'pending'")

    async def make_rechecks_due(self) -> None:
        """As if their time had come."""
        await self.fetch("UPDATE archive_queue SET recheck_at = now() - interval '1 second' WHERE recheck_at IS NOT NULL")

    def quota(self, name: str = "bot", *limits: str) -> Quota:
        data = {"name": name, "bot_id": f"st-{name}", "client_id": "cs-1", "client_secret": "secret-1", "rate_limits": limits}
        settings = BotSettings.model_validate(data)
        return Quota(self.database, settings.budget_key, settings.rate_limits or (), backoff_base=timedelta(seconds=2))

    async def claim(self, worker_id: int, slots: int = 100, *bots: str) -> list[Session]:
        claim = await self.queue.claim(worker_id, {name: self.quota(name) for name in bots or ["bot"]}, slots)
        return claim.sessions

    async def claim_one(self, session_id: str = "s-1") -> Session:
        """A session that a worker of its own has claimed."""
        await self.add(session_id)
        (session,) = await self.claim(await self.worker())
        return session

    async def settle(self, attempt: Attempt, outcome: Outcome) -> State:
        """One outcome by itself."""
        (state,) = await self.queue.settle([(attempt, outcome)])
        if state is None:
            raise LeaseLost(attempt.session.session_id)
        return state

    @asynccontextmanager
    async def locked(self, query: str, *args: Any) -> AsyncIterator[None]:
        """Another transaction has these rows locked."""
        connection = await asyncpg.connect(self.database.dsn)
        try:
            async with connection.transaction():
                await connection.execute(query, *args)
                yield
        finally:
            await connection.close()

    async def blocked(self, count: int = 1) -> int:
        """A backend that waits for a lock, as soon as there are so many."""
        async with asyncio.timeout(20):
            while True:
                found = await self.fetch(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                if len(found) >= count:
                    return int(found[0]["pid"])
                await asyncio.sleep(0.01)


@pytest.fixture
def harness(database: Database, queue: Queue) -> QueueHarness:
    return QueueHarness(database, queue)


def stored_file(ordinal: int = 1, key: str = "") -> StoredFile:
    """A file that the store has confirmed."""
    key = key or f"folder/{uuid.uuid4()}.wav"
    return StoredFile(ordinal, "a.wav", key.rpartition("/")[2], key, 44, "0" * 64, "audio/wav", ("streamed_wav",))


def ids(sessions: Sequence[Session]) -> list[str]:
    return [session.session_id for session in sessions]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan that EXPLAIN printed as JSON."""
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes_of(below)
