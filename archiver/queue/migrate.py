"""Migrations: plain SQL files in `migrations/`, applied once each, in order, under a lock."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg

from archiver.errors import DatabaseError, DatabaseTooNew, NotMigrated
from archiver.queue.database import Database

_LOCK = 0x6B6F7265  # "kore": one migration at a time in one database

MIGRATION_TIMEOUT = 6 * 3600.0
"""Seconds that one migration may take: an index on ten million rows takes minutes, on a small server hours."""

LOCK_TIMEOUT = 600.0
"""Seconds to wait for another migration to end."""


@dataclass(frozen=True)
class Migration:
    """One file `NNNN_name.sql`."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """So that an applied migration that was edited afterwards is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations of this version, in order: from the package when installed, from the checkout otherwise."""
    folder: Traversable = resources.files("archiver").joinpath("migrations")
    if not folder.is_dir():
        folder = Path(__file__).parents[2] / "migrations"
    found = []
    for entry in folder.iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise DatabaseError("the migrations of this installation are incomplete", hint="reinstall kore-archiver")
    return found


async def migrate(database: Database) -> list[Migration]:
    """Apply what is missing, each in a transaction of its own; return what was applied. Safe to run twice at once."""
    known = migrations()
    applied: list[Migration] = []
    async with database.connection() as connection:
        while True:
            # The lock belongs to the transaction: one of the session would stay behind in a transaction-pooling pgbouncer.
            async with connection.transaction():
                await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})", timeout=LOCK_TIMEOUT)
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS archive_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                    "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
                rows = await connection.fetch("SELECT version, name, sha256 FROM archive_migrations ORDER BY version")
                _check_history(rows, known)
                if len(rows) == len(known):
                    return applied
                migration = known[len(rows)]
                await connection.execute(migration.sql, timeout=MIGRATION_TIMEOUT)
                await connection.execute(
                    "INSERT INTO archive_migrations (version, name, sha256) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.sha256,
                )
            applied.append(migration)


async def check_version(database: Database) -> int:
    """The database's version, if it is this program's. Raises NotMigrated or DatabaseTooNew."""
    async with database.connection() as connection:
        if await connection.fetchval("SELECT to_regclass('archive_migrations')") is None:
            raise NotMigrated("the database was never migrated")
        rows = await connection.fetch("SELECT version, name, sha256 FROM archive_migrations ORDER BY version")
    known = migrations()
    _check_history(rows, known)
    if len(rows) < len(known):
        raise NotMigrated(f"the database is at version {len(rows)}, this program needs {len(known)}")
    return len(rows)


def _check_history(rows: list[asyncpg.Record], known: list[Migration]) -> None:
    if len(rows) > len(known):
        raise DatabaseTooNew(f"the database is at version {rows[-1]['version']}, this program knows {len(known)}")
    for row, migration in zip(rows, known, strict=False):
        if (row["version"], row["sha256"]) != (migration.version, migration.sha256):
            raise DatabaseError(
                f"migration {row['version']:04d}_{row['name']} was applied in another edition",
                hint="this database belongs to a different build; use the one that made it",
            )
