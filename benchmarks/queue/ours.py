"""The archiver: its own worker with everything on, but for the platform."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from archiver import __version__
from archiver.archive.context import Archive, BotAccess
from archiver.archive.media import MediaClient, MediaHosts
from archiver.config import BotSettings, Settings
from archiver.kore.answers import Answer, Reply
from archiver.kore.client import Asking, KoreClient, T
from archiver.kore.exchange import Note, Pay
from archiver.observe.logs import configure
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.queue.quota import Quota
from archiver.queue.sessions import NewSession, Queue
from archiver.runtime.buffers import Buffers
from archiver.stores.open import open_store
from archiver.worker.loop import Worker
from benchmarks.queue.tool import SESSION_ID, ProducerContext, Release, Settled, Tool

BOT = "bench"


class Nothing(Asking):
    """There is no recording, and nothing that has to be understood first."""

    async def answer(self) -> Answer:
        """The same for all."""
        return _ANSWER


_ANSWER = Answer("media_unavailable", (), "", 200)
_NOTHING = Nothing("recording", Reply(), 1)


class NoPlatform(KoreClient):
    """Answers at once that there is no recording: the job that has nothing to do."""

    def __init__(self, bot: BotSettings) -> None:
        self.bot = bot
        self.asked = 0

    async def retrying(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Nothing breaks."""
        return await ask()

    @asynccontextmanager
    async def ask(
        self, session_id: str, *, kind: str = "recording", user_id: str | None = None, draw: Pay, on_answer: Note
    ) -> AsyncIterator[Asking]:
        """One answer for all."""
        self.asked += 1
        yield _NOTHING

    def answers_inline(self, kind: str) -> bool:
        """Never."""
        return False

    async def answer(self, session_id: str, *, kind: str, user_id: str | None, draw: Pay, on_answer: Note) -> Answer:
        """One answer for all."""
        self.asked += 1
        return _ANSWER


class Archiver(Tool):
    """Leases, epochs, the shared budget and the history are all on."""

    name = "archiver"
    versions = ("kore-archiver", "asyncpg")
    best = {"concurrency": 200, "limits": ["999999999/second"], "batch": 5000}  # noqa: RUF012
    tables = ("archive_queue", "archive_events", "archived_recordings")

    def _settings(self, dsn: str, folder: Path) -> Settings:
        return Settings.model_validate(
            {
                "database": {"url": dsn},
                "bots": [
                    {
                        "name": BOT,
                        "bot_id": "st-bench",
                        "client_id": "cs-bench",
                        "client_secret": "a secret of this benchmark alone",
                        "rate_limits": self.tuning["limits"],
                    }
                ],
                "storage": {"url": folder.as_uri()},
                "worker": {"concurrency": self.tuning["concurrency"]},
                "log": {"level": "warning"},
            }
        )

    async def install(self, dsn: str) -> None:
        """Migrated, as the command of that name does it."""
        async with Database(dsn, pool_size=1) as database:
            await migrate(database)
            await Queue(database, self._settings(dsn, Path.cwd()).retry).record_bots([BOT], complete=True)

    @asynccontextmanager
    async def producer(self, dsn: str) -> ProducerContext:
        """`Queue.enqueue`, as the archiver's own command does it."""
        async with Database(dsn, pool_size=1) as database:
            queue = Queue(database, self._settings(dsn, Path.cwd()).retry)

            async def enqueue(ids: Sequence[str]) -> None:
                added, _ = await queue.enqueue([NewSession(BOT, one) for one in ids], actor="benchmark")
                assert added == len(ids), "some were there before"

            yield enqueue

    async def work(self, dsn: str, release: Release) -> int:
        """A whole worker, drained."""
        configure(level="warning", form="auto")
        with tempfile.TemporaryDirectory() as folder:
            settings = self._settings(dsn, Path(folder))
            pool_size = min(settings.worker.concurrency, 12) + 4  # as the command `archiver worker` has it
            bot = settings.bots[0]
            buffers = Buffers(settings.transfer.max_buffer)
            async with Database(dsn, pool_size=pool_size) as database, open_store(settings.storage, buffers) as store:
                queue = Queue(database, settings.retry)
                client, media = NoPlatform(bot), MediaClient(MediaHosts.of(bot))
                quota = Quota(database, bot.budget_key, bot.rate_limits or (), backoff_base=settings.retry.backoff_base)
                await store.check()
                tally = Tally()
                worker = Worker(
                    settings,
                    database,
                    queue,
                    {BOT: BotAccess(bot, client, media, quota, quota)},
                    Archive(store, settings.storage.path, settings.retry, transfers=tally.transfers),
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    version=__version__,
                    tally=tally,
                )
                try:
                    await release()
                    ended = await worker.run(drain=True)
                finally:
                    await media.close()
                assert ended.complete, ended
                assert tally.lost == 0, "a lease was lost: this was not the work that is measured"
                return client.asked

    async def settled(self, connection: asyncpg.Connection[Any], since: float) -> Settled:
        """By the sessions' rows and their history."""
        row = await connection.fetchrow(
            """
            WITH ended AS MATERIALIZED (
                SELECT id, pg_xact_commit_timestamp(xmin) AS at FROM archive_queue
                WHERE finished_at >= to_timestamp($1) AND state = 'unavailable'
            ), told AS (
                SELECT event FROM archive_history WHERE at >= to_timestamp($1)
            )
            SELECT (SELECT count(*) FROM ended) AS finished, (SELECT count(*) FROM told WHERE event = 'unavailable') AS endings,
                   (SELECT count(*) FROM told WHERE event = 'claimed') AS claims,
                   (SELECT count(*) FROM archive_queue WHERE state IN ('pending', 'claimed')) AS open,
                   (SELECT extract(epoch FROM max(at)) FROM ended)::float AS last
            """,
            since,
        )
        assert row is not None
        return Settled(**row)

    async def load_finished(self, connection: asyncpg.Connection[Any], first: int, count: int) -> None:
        """Archived sessions; every fifth with its recording and its whole history."""
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET timezone = 'UTC'")
        await connection.execute(
            f"""
            INSERT INTO archive_queue (bot, session_id, state, archive_date, enqueued_at, run_at, claimed_at, first_asked_at,
                                       finished_at, epoch, calls)
            SELECT '{BOT}', {SESSION_ID}, 'archived', at, at, at, at + interval '1 second', at + interval '1 second',
                   at + interval '3 seconds', 1, 1
            FROM (SELECT n, now() - interval '90 days' + n * interval '1 second' AS at
                  FROM generate_series($1::bigint, $1::bigint + $2::bigint - 1) n) numbers
            """,
            first,
            count,
            timeout=3600,
        )
        await connection.execute(
            """
            INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type,
                                             archived_at, source_name, queue_id)
            SELECT bot, session_id, kind, 1, 'recording.wav',
                   concat('bot=', bot, '/date=', archive_date::date, '/', session_id, '/recording/recording.wav'), 960044,
                   encode(sha256(session_id::bytea), 'hex'), 'audio/wav', finished_at, 'recording.wav', id
            FROM archive_queue
            WHERE state = 'archived' AND id % 5 = 0 AND id > (SELECT coalesce(max(queue_id), 0) FROM archived_recordings)
            """,
            timeout=3600,
        )
        await connection.execute(
            """
            INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
            SELECT q.id, e.event, q.epoch, 'worker 1', q.claimed_at, e.data
            FROM archive_queue q,
                 (VALUES ('enqueued', '{"state": "pending", "priority": "normal"}'::jsonb),
                         ('claimed', '{"checks": 0, "crashes": 0, "failures": 0}'),
                         ('asked', '{"answer": "", "status": "success", "http_status": 200}'),
                         ('stored', '{"bytes": 960044, "existed": false, "ordinal": 1, "file_name": "recording.wav"}'),
                         ('archived', '{"failures": 0}')) AS e (event, data)
            WHERE q.state = 'archived' AND q.id % 5 = 0 AND q.id > (SELECT coalesce(max(queue_id), 0) FROM archive_events)
            """,
            timeout=3600,
        )
        await connection.execute("RESET session_replication_role")


BEGIN_LEDGER = """
    INSERT INTO archive_ledger_head (origin, public_key, signers, root) VALUES ('benchmark', 'none', 0, '\\x00')
    ON CONFLICT DO NOTHING"""


class Sealed(Archiver):
    """With a ledger: what ends is also written down to be sealed. Sealing itself is measured by `benchmarks.evidence`."""

    name = "archiver-evidence"

    async def install(self, dsn: str) -> None:
        """Migrated, and the ledger is begun."""
        await super().install(dsn)
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(BEGIN_LEDGER)
        finally:
            await connection.close()


class PlainSql(Archiver):
    """The same queue, filled as other programs fill it: one INSERT a batch."""

    name = "archiver (plain SQL)"

    @asynccontextmanager
    async def producer(self, dsn: str) -> ProducerContext:
        """The documented statement."""
        connection = await asyncpg.connect(dsn)
        try:

            async def enqueue(ids: Sequence[str]) -> None:
                await connection.execute(
                    "INSERT INTO archive_queue (bot, session_id) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING",
                    BOT,
                    list(ids),
                )

            yield enqueue
        finally:
            await connection.close()
