"""procrastinate: its worker with `wait=False`, on the connector that it recommends for asyncio."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from procrastinate import App, PsycopgConnector

from benchmarks.queue.tool import SESSION_ID, ProducerContext, Release, Settled, Tool


class Procrastinate(Tool):
    """Its defaults but for the tuning: ended jobs stay, their events are written, LISTEN is on."""

    name = "procrastinate"
    versions = ("procrastinate", "psycopg", "psycopg-binary", "psycopg-pool")
    best = {"concurrency": 5, "pool": 4, "batch": 1000}  # noqa: RUF012
    tables = ("procrastinate_jobs", "procrastinate_events")

    def __init__(self, **tuning: Any) -> None:
        super().__init__(**tuning)
        self._ran = 0

    async def _empty(self, session_id: str) -> None:
        self._ran += 1

    def _app(self, dsn: str) -> App:
        app = App(connector=PsycopgConnector(conninfo=dsn, min_size=self.tuning["pool"], max_size=self.tuning["pool"]))
        app.task(name="empty")(self._empty)
        return app

    async def install(self, dsn: str) -> None:
        """`procrastinate schema --apply`."""
        async with self._app(dsn).open_async() as app:
            await app.schema_manager.apply_schema_async()

    @asynccontextmanager
    async def producer(self, dsn: str) -> ProducerContext:
        """`batch_defer_async`: one statement a batch."""
        async with self._app(dsn).open_async() as app:

            async def enqueue(ids: Sequence[str]) -> None:
                await app.configure_task("empty").batch_defer_async(*({"session_id": one} for one in ids))

            yield enqueue

    async def work(self, dsn: str, release: Release) -> int:
        """A worker with one task that does nothing."""
        logging.getLogger("procrastinate").setLevel(logging.WARNING)
        async with self._app(dsn).open_async() as app:
            await release()
            await app.run_worker_async(wait=False, concurrency=self.tuning["concurrency"], install_signal_handlers=False)
        return self._ran

    async def settled(self, connection: asyncpg.Connection[Any], since: float) -> Settled:
        """By its jobs and their events."""
        row = await connection.fetchrow(
            """
            WITH told AS MATERIALIZED (
                SELECT job_id, type, pg_xact_commit_timestamp(xmin) AS at FROM procrastinate_events WHERE at >= to_timestamp($1)
            )
            SELECT (SELECT count(DISTINCT job_id) FROM told JOIN procrastinate_jobs j ON j.id = job_id
                    WHERE type = 'succeeded' AND j.status = 'succeeded' AND j.attempts = 1) AS finished,
                   count(*) FILTER (WHERE type NOT IN ('deferred', 'started')) AS endings,
                   count(*) FILTER (WHERE type = 'started') AS claims,
                   (SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')) AS open,
                   extract(epoch FROM max(at) FILTER (WHERE type = 'succeeded'))::float AS last
            FROM told
            """,
            since,
        )
        assert row is not None
        return Settled(**row)

    async def load_finished(self, connection: asyncpg.Connection[Any], first: int, count: int) -> None:
        """Succeeded jobs; every fifth with its events."""
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            f"""
            WITH jobs AS (
                INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts)
                SELECT 'default', 'empty', jsonb_build_object('session_id', {SESSION_ID}), 'succeeded', 1
                FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) n
                RETURNING id
            )
            INSERT INTO procrastinate_events (job_id, type, at)
            SELECT id, type::procrastinate_job_event_type, now() - interval '30 days'
            FROM jobs, unnest('{{deferred,started,succeeded}}'::text[]) type WHERE id % 5 = 0
            """,
            first,
            count,
            timeout=3600,
        )
        await connection.execute("RESET session_replication_role")
