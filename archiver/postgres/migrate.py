"""Migrations: plain SQL files in `migrations/`, applied once each, in order, under a lock.

From 0007 on each begins with a header, which is kept with it in `archive_migrations`:

    -- phase: expand            (or contract: it takes away what an older program needs)
    -- transaction: none        (only where needed, such as for CREATE INDEX CONCURRENTLY; see `Header`)
    -- min_program: 0.1         (the oldest program that works with the tables as they are after it)
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeAlias

import asyncpg

from archiver.errors import DatabaseError, DatabaseTooNew, NotMigrated
from archiver.postgres.database import LOCK_POLL_SECONDS, Database
from archiver.postgres.foreign_locks import held_by_foreign_role

_Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

_LOCK = 0x6B6F7265  # "kore": one migration at a time in one database

MIGRATION_TIMEOUT = 6 * 3600.0
"""Seconds that one migration may take: an index on ten million rows takes minutes, on a small server hours."""

LOCK_TIMEOUT = 600.0
"""Seconds to wait for another migration to end."""


WITHOUT_HEADER = 6
"""The migrations up to this one were applied before there were headers: their bytes stay as they are."""

HEADER = "-- phase: expand|contract, -- transaction: none (where needed), -- min_program: X.Y, in its first lines"


@dataclass(frozen=True)
class Header:
    """What a migration says of itself. One without a transaction is run a statement at a time, each ending its last line with
    `;`, and again from its first one after it was broken off: every statement has to bear that.
    """

    phase: str
    transactional: bool
    min_program: str


@dataclass(frozen=True)
class Migration:
    """One file `NNNN_name.sql`."""

    version: int
    name: str
    sql: str
    header: Header | None = None

    @property
    def in_transaction(self) -> bool:
        """All of it or nothing is applied."""
        return self.header is None or self.header.transactional

    @property
    def sha256(self) -> str:
        """So that an applied migration that was edited afterwards is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations(folder: Traversable | None = None) -> list[Migration]:
    """All migrations of this version, in order: from the package when installed, from the checkout otherwise. Raises
    DatabaseError for one whose header is not valid.
    """
    if folder is None:
        folder = resources.files("archiver").joinpath("migrations")
        if not folder.is_dir():
            folder = Path(__file__).parents[2] / "migrations"
    found = []
    for entry in folder.iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            version, sql = int(match[1]), entry.read_text(encoding="utf-8")
            header = _header(entry.name, sql) if version > WITHOUT_HEADER else None
            found.append(Migration(version, match[2], sql, header))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise DatabaseError("the migrations of this installation are incomplete", hint="reinstall kore-archiver")
    return found


def _header(name: str, sql: str) -> Header:
    fields: dict[str, str] = {}
    for line in sql.splitlines():
        match = re.fullmatch(r"-- (phase|transaction|min_program): (\S+)", line)
        if match is None:
            break
        fields.setdefault(match[1], match[2])
    phase, transaction, min_program = (fields.get(key, "") for key in ("phase", "transaction", "min_program"))
    if phase not in ("expand", "contract") or transaction not in ("", "none") or not re.fullmatch(r"\d+\.\d+", min_program):
        raise DatabaseError(f"the migration {name} has no valid header", hint=f"it begins with {HEADER}")
    if transaction and re.search(r"\$\w*\$", sql):
        raise DatabaseError(
            f"the migration {name} has a function's body, but no transaction", hint="put the function into a migration of its own"
        )
    return Header(phase, not transaction, min_program)


async def migrate(database: Database, folder: Traversable | None = None) -> list[Migration]:
    """Apply what is missing, each in a transaction of its own unless its header says otherwise; return what was applied. Safe to
    run twice at once.
    """
    known = migrations(folder)
    applied: list[Migration] = []
    async with database.connection() as connection:
        _check_encoding(connection)
        while True:
            # The lock belongs to the transaction: one of the session would stay behind in a transaction-pooling pgbouncer.
            async with connection.transaction():
                await _lock(connection)
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS archive_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                    "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
                # Nobody but who may write this table can take that, so it holds where the other one is a stranger's.
                await connection.execute("LOCK TABLE archive_migrations IN SHARE ROW EXCLUSIVE MODE", timeout=LOCK_TIMEOUT)
                migration = await _next(connection, known)
                if migration is None:
                    return applied
                if migration.in_transaction:
                    await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT)
                    await _record(connection, migration)
                    applied.append(migration)
            if not migration.in_transaction and await _apply_without_transaction(database, connection, migration, known):
                applied.append(migration)


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
    database: Database, connection: _Connection, migration: Migration, known: list[Migration]
) -> bool:
    """Apply one without a transaction, unless another process has meanwhile. Others wait by looking, not in a statement: an
    index that is built concurrently waits for every statement that began before it.
    """
    async with database.alone("migrate", on_wait=lambda: None):
        if await _next(connection, known) != migration:
            return False
        for statement in re.split(r"(?<=;)[ \t]*\n", re.sub(r"^--.*\n", "", migration.sql, flags=re.MULTILINE)):
            if statement.strip():
                await connection.execute(statement, timeout=MIGRATION_TIMEOUT)
        async with connection.transaction():
            await _record(connection, migration)
        return True


async def _next(connection: _Connection, known: list[Migration]) -> Migration | None:
    """The first one that is not applied."""
    rows = await _history(connection)
    _check_history(rows, known)
    return known[len(rows)] if len(rows) < len(known) else None


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
            header.min_program,
        )


async def _history(connection: _Connection) -> list[asyncpg.Record]:
    return await connection.fetch("SELECT version, name, sha256 FROM archive_migrations ORDER BY version")


async def check_version(database: Database) -> int:
    """The database's version, if it is this program's and can hold what platforms say. Raises NotMigrated, DatabaseTooNew,
    DatabaseError.
    """
    async with database.connection() as connection:
        _check_encoding(connection)
        if await connection.fetchval("SELECT to_regclass('archive_migrations')") is None:
            raise NotMigrated("the database was never migrated")
        rows = await _history(connection)
    known = migrations()
    _check_history(rows, known)
    if len(rows) < len(known):
        raise NotMigrated(f"the database is at version {len(rows)}, this program needs {len(known)}")
    return len(rows)


def _check_encoding(connection: _Connection) -> None:
    """Raises DatabaseError for a database that cannot hold every name: it would refuse what is recorded of files long stored."""
    encoding = connection.get_settings().server_encoding
    if encoding not in ("UTF8", "UNICODE"):
        raise DatabaseError(
            f"the database's encoding is {encoding}: it cannot hold every file name and answer",
            hint="create one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 and name it in database.url; what an "
            "existing one holds is moved there with pg_dump and pg_restore",
        )


async def schema_open_to_all(database: Database) -> str | None:
    """The schema of the tables, if everybody may create in it: a better-fitting function of theirs runs in our statements."""
    async with database.connection() as connection:
        name: str | None = await connection.fetchval(
            "SELECT quote_ident(current_schema()) WHERE has_schema_privilege('public', current_schema(), 'CREATE')"
        )
        return name


def _check_history(rows: list[asyncpg.Record], known: list[Migration]) -> None:
    if len(rows) > len(known):
        raise DatabaseTooNew(f"the database is at version {rows[-1]['version']}, this program knows {len(known)}")
    for row, migration in zip(rows, known, strict=False):
        if (row["version"], row["sha256"]) != (migration.version, migration.sha256):
            raise DatabaseError(
                f"migration {row['version']:04d}_{row['name']} was applied in another edition",
                hint="this database belongs to a different build; use the one that made it",
            )
