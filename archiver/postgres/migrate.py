"""Applying migrations: once each, in order, under a lock, while workers and producers go on.

Nobody waits for long behind a migration that waits for a lock: after LOCK_WAIT it leaves the queue for the lock, and comes again.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources.abc import Traversable
from typing import TypeAlias

import asyncpg

from archiver.errors import DatabaseError
from archiver.observe.logs import logger
from archiver.postgres.database import LOCK_POLL_SECONDS, Database
from archiver.postgres.foreign_locks import held_by_foreign_role
from archiver.postgres.lock_holders import LockHolders
from archiver.postgres.migrations import PROGRAM, Migration, Release, migrations
from archiver.postgres.schema import check_encoding, check_history, read_history

log = logger(__name__)

_Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_LOCK = 0x6B6F7265  # "kore": one migration at a time in one database

MIGRATION_TIMEOUT = 6 * 3600.0
"""Seconds that one migration may take: an index on ten million rows takes minutes, on a small server hours."""

LOCK_TIMEOUT = 600.0
"""Seconds to wait for another migration to end, and for the locks that one needs."""

LOCK_WAIT = 0.5
"""Seconds that a migration waits in the queue for one lock: for as long, everybody waits who came after it."""

AUTOVACUUM_MARGIN = 0.2
"""Seconds above the server's deadlock_timeout, after which it ends an autovacuum that somebody waits for."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two tries to get a lock: doubling, with jitter."""


async def migrate(
    database: Database,
    folder: Traversable | None = None,
    *,
    program: Release = PROGRAM,
    lock_seconds: float = LOCK_TIMEOUT,
) -> list[Migration]:
    """Apply what is missing, each in a transaction of its own unless its header says otherwise; return what was applied: nothing,
    where a later program migrated the database and this one works with it. Safe to run twice at once. Raises DatabaseTooNew, or
    DatabaseError if a lock cannot be had for `lock_seconds`.
    """
    known = migrations(folder)
    applied: list[Migration] = []
    async with database.connection() as connection:
        check_encoding(connection)
        tries: _Tries | None = None
        while True:
            migration: Migration | None = None
            try:
                # The lock belongs to the transaction: one of the session would stay behind in a transaction-pooling pgbouncer.
                async with connection.transaction():
                    await _lock(connection)
                    await connection.execute(
                        "CREATE TABLE IF NOT EXISTS archive_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                        "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                    )
                    # Nobody but who may write this table can take that, so it holds where the other one is a stranger's.
                    await connection.execute("LOCK TABLE archive_migrations IN SHARE ROW EXCLUSIVE MODE", timeout=LOCK_TIMEOUT)
                    migration = await _next(connection, known, program)
                    if migration is None:
                        return applied
                    if tries is None or tries.migration != migration:
                        tries = _Tries(database, migration, lock_seconds)
                    if migration.in_transaction:
                        await tries.limit_waits(connection)
                        async with tries.watched(connection):
                            await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT)
                        await _record(connection, migration)
                        applied.append(migration)
                if not migration.in_transaction:
                    async with tries.watched(connection):
                        if await _apply_without_transaction(database, connection, migration, known, program):
                            applied.append(migration)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                # Undone whole, or of statements that bear to be run again. Whoever waited behind it goes on.
                if tries is None or migration is None:
                    raise
                await tries.pause(connection)


class _Tries:
    """Those of one migration to get its locks."""

    def __init__(self, database: Database, migration: Migration, seconds: float) -> None:
        self.migration = migration
        self.lock_wait = LOCK_WAIT
        self._holders = LockHolders(database, self._report)
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._next_pause = FIRST_PAUSE

    async def limit_waits(self, connection: _Connection) -> None:
        """Of this transaction, for each lock. The migration may set another limit."""
        await connection.execute(f"SET LOCAL lock_timeout = '{self.lock_wait * 1000:.0f}ms'")
        # Then an autovacuum makes way within LOCK_WAIT. Nobody else may set this.
        await connection.execute(
            "SELECT set_config('deadlock_timeout', '200ms', true) FROM pg_roles WHERE rolname = current_user AND rolsuper"
        )

    @asynccontextmanager
    async def watched(self, connection: _Connection) -> AsyncIterator[None]:
        """Notice whom it waits for, as long as it waits."""
        pid = connection.get_server_pid()
        if self.migration.in_transaction:  # else it may be another server's each time, where a proxy is on the way
            pid = await connection.fetchval("SELECT pg_backend_pid()")
        async with self._holders.noticed(pid):
            yield

    async def pause(self, connection: _Connection) -> None:
        """Wait for the next one. Raises DatabaseError if there is to be none."""
        held_by = self._holders.told
        if time.monotonic() > self._deadline:
            raise DatabaseError(
                f"the migration {self.migration.file_name} got no lock for {self._seconds:.0f} s: it is held by {held_by}",
                hint="end that transaction, or wait for its end, then run `archiver migrate` again",
            )
        pause = self._next_pause * random.uniform(0.5, 1.5)  # noqa: S311  # jitter, no secret
        self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)
        self.lock_wait = LOCK_WAIT
        if self._holders.only_autovacuum:
            # It makes way for whoever waits for as long as that, and would keep everybody else of us out for hours.
            self.lock_wait = await _deadlock_timeout(connection) + AUTOVACUUM_MARGIN
        self._report(again_in_seconds=round(pause, 1))
        await asyncio.sleep(pause)

    def _report(self, **more: float) -> None:
        hint = "a transaction that is left open keeps it waiting; workers and producers go on meanwhile"
        held_by = self._holders.told
        log.warning("migration_lock_awaited", migration=self.migration.file_name, held_by=held_by, **more, hint=hint)


async def _deadlock_timeout(connection: _Connection) -> float:
    return float(await connection.fetchval("SELECT setting::float / 1000 FROM pg_settings WHERE name = 'deadlock_timeout'"))


async def _lock(connection: _Connection) -> None:
    """Until the end of the transaction. Raises DatabaseError if another migration lasts for too long."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
        if await held_by_foreign_role(connection, _LOCK, "migrate"):
            return
        if time.monotonic() > deadline:
            raise DatabaseError(f"another migration has not ended for {LOCK_TIMEOUT:.0f} s", hint="run this again when it has")
        await asyncio.sleep(LOCK_POLL_SECONDS)


async def _apply_without_transaction(
    database: Database, connection: _Connection, migration: Migration, known: list[Migration], program: Release
) -> bool:
    """Apply one without a transaction, unless another process has meanwhile. Others wait by looking, not in a statement: an
    index that is built concurrently waits for every statement that began before it.
    """
    async with database.alone("migrate", on_wait=lambda: None):
        if await _next(connection, known, program) != migration:
            return False
        for statement in re.split(r"(?<=;)[ \t]*\n", re.sub(r"^--.*\n", "", migration.sql, flags=re.MULTILINE)):
            if statement.strip():
                await _drop_broken_index(connection, statement)
                await connection.execute(statement, timeout=MIGRATION_TIMEOUT)
        async with connection.transaction():
            await _record(connection, migration)
        return True


_BUILDS_INDEX = re.compile(
    r"\s*CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?([a-z_][a-z0-9_]*)\s+ON\b", re.IGNORECASE
)


async def _drop_broken_index(connection: _Connection, statement: str) -> None:
    """Remove what is left of an index whose building was broken off: it costs every write, serves no query, and IF NOT EXISTS
    would take it for the index.
    """
    match = _BUILDS_INDEX.match(statement)
    if match is None:
        return
    broken = await connection.fetchval(
        "SELECT quote_ident(relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
        "WHERE indexrelid = to_regclass($1) AND NOT (indisvalid AND indisready AND indislive)",
        match[1].lower(),
    )
    if broken is not None:
        log.warning("broken_index_dropped", index=broken)
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {broken}", timeout=MIGRATION_TIMEOUT)


async def _next(connection: _Connection, known: list[Migration], program: Release) -> Migration | None:
    """The first one that is not applied."""
    applied = await read_history(connection)
    check_history(applied, known, program)
    return known[len(applied)] if len(applied) < len(known) else None


async def _record(connection: _Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO archive_migrations (version, name, sha256) VALUES ($1, $2, $3)",
        migration.version,
        migration.name,
        migration.sha256,
    )
    if (header := migration.header) is not None:
        await connection.execute(
            "UPDATE archive_migrations SET phase = $2, transactional = $3, min_program = $4 WHERE version = $1",
            migration.version,
            header.phase,
            header.transactional,
            str(header.min_program),
        )
