"""pgqueuer: its QueueManager in drain mode, on the loop that its own command uses."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode

from benchmarks.queue.tool import SESSION_ID, ProducerContext, Release, Settled, Tool

ENTRYPOINT = "empty"


class Pgqueuer(Tool):
    """Its defaults but for the tuning: durable tables, heartbeats, the log."""

    name = "pgqueuer"
    versions = ("pgqueuer", "asyncpg", "uvloop")
    best = {"batch_size": 500, "pool": 0, "uvloop": True, "batch": 5000}  # noqa: RUF012
    tables = ("pgqueuer", "pgqueuer_log")

    async def install(self, dsn: str) -> None:
        """`pgq install`, and the autovacuum settings that its documentation recommends."""
        connection = await asyncpg.connect(dsn)
        queries = Queries.from_asyncpg_connection(connection)
        await queries.install()
        await queries.optimize_autovacuum()
        await connection.close()

    @asynccontextmanager
    async def producer(self, dsn: str) -> ProducerContext:
        """Lists, as its documentation has it for many jobs."""
        connection = await asyncpg.connect(dsn)
        queries = Queries.from_asyncpg_connection(connection)

        async def enqueue(ids: Sequence[str]) -> None:
            await queries.enqueue([ENTRYPOINT] * len(ids), [one.encode() for one in ids], [0] * len(ids))

        try:
            yield enqueue
        finally:
            await connection.close()

    async def work(self, dsn: str, release: Release) -> int:
        """A worker with one entry point that does nothing."""
        logging.getLogger("pgqueuer").setLevel(logging.WARNING)
        ran = 0

        async def empty(_: Job) -> None:
            nonlocal ran
            ran += 1

        async def run(worker: PgQueuer) -> None:
            worker.entrypoint(ENTRYPOINT)(empty)
            await release()
            await worker.qm.run(
                batch_size=self.tuning["batch_size"], mode=QueueExecutionMode.drain, dequeue_timeout=timedelta(seconds=1)
            )

        if self.tuning["pool"]:
            async with asyncpg.create_pool(dsn, min_size=self.tuning["pool"], max_size=self.tuning["pool"]) as pool:
                await run(PgQueuer.from_asyncpg_pool(pool))
        else:
            connection = await asyncpg.connect(dsn)
            await run(PgQueuer.from_asyncpg_connection(connection))
            await connection.close()
        return ran

    async def settled(self, connection: asyncpg.Connection[Any], since: float) -> Settled:
        """By its log; a line that its statistics have counted was written anew, so its own time stands for its commit."""
        row = await connection.fetchrow(
            """
            WITH told AS MATERIALIZED (
                SELECT job_id, status, CASE WHEN aggregated THEN created ELSE pg_xact_commit_timestamp(xmin) END AS at
                FROM pgqueuer_log WHERE created >= to_timestamp($1)
            )
            SELECT count(DISTINCT job_id) FILTER (WHERE status = 'successful') AS finished,
                   count(*) FILTER (WHERE status NOT IN ('queued', 'picked')) AS endings,
                   count(*) FILTER (WHERE status = 'picked') AS claims,
                   (SELECT count(*) FROM pgqueuer) AS open,
                   extract(epoch FROM max(at) FILTER (WHERE status = 'successful'))::float AS last
            FROM told
            """,
            since,
        )
        assert row is not None
        return Settled(**row)

    async def load_finished(self, connection: asyncpg.Connection[Any], first: int, count: int) -> None:
        """It deletes a job that has ended: what stays are the lines of its log, three a job."""
        await connection.execute(
            f"""
            INSERT INTO pgqueuer_log (created, job_id, status, priority, entrypoint, aggregated)
            SELECT now() - interval '90 days' + n * interval '1 second', id, status::pgqueuer_status, 0, '{ENTRYPOINT}', true
            FROM (SELECT n, nextval(pg_get_serial_sequence('pgqueuer', 'id')) AS id, {SESSION_ID} AS session_id
                  FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) n) numbers,
                 unnest('{{queued,picked,successful}}'::text[]) status
            """,
            first,
            count,
            timeout=3600,
        )

    def run(self, main: Coroutine[Any, Any, int]) -> int:
        """uvloop, as `pgq run` does."""
        return uvloop.run(main) if self.tuning["uvloop"] else super().run(main)
