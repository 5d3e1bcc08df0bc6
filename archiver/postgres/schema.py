"""Whether this program works with the tables as they are: made by its own migrations, by some of them, or by later ones, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias

import asyncpg

from archiver.errors import DatabaseError, DatabaseTooNew, NotMigrated
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.postgres.migrations import PROGRAM, Migration, Release, migrations

AnyConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

log = logger(__name__)


@dataclass(frozen=True)
class Applied:
    """A row of `archive_migrations`. `min_program`: the oldest program that works with the tables after it, as it was written
    there; None before 0007.
    """

    version: int
    name: str
    sha256: str
    min_program: str | None


@dataclass(frozen=True)
class Schema:
    """A version of the tables that this program works with. `version` is the database's, `known` the program's newest; `missing`
    are the migrations between them, if the database is the older one.
    """

    version: int
    known: int
    missing: tuple[str, ...] = ()

    @property
    def notice(self) -> str:
        """What to know of it, for people; empty if both are of one version."""
        if self.version > self.known:
            return f"the database is at version {self.version}, newer than this program ({self.known}), which works with it"
        if self.version < self.known:
            return f"the database is at version {self.version}, and this program does without {', '.join(self.missing)}"
        return ""

    @property
    def hint(self) -> str:
        """What to do about that, when it suits."""
        if self.version > self.known:
            return "upgrade this archiver to the version that migrated the database"
        return "run `archiver migrate`; workers that run notice it within a minute" if self.version < self.known else ""

    def log(self) -> None:
        """One line, if the versions differ."""
        if self.version > self.known:
            log.warning("database_newer", database=self.version, program=self.known, hint=self.hint)
        elif self.version < self.known:
            log.warning("database_older", database=self.version, program=self.known, without=list(self.missing), hint=self.hint)


async def check_version(database: Database, folder: Traversable | None = None, program: Release = PROGRAM) -> Schema:
    """What the database is for this program, which works with it. Raises NotMigrated or DatabaseTooNew if it does not,
    DatabaseError if the database is another build's or cannot hold what platforms say.
    """
    async with database.connection() as connection, connection.transaction():
        check_encoding(connection)
        if await connection.fetchval("SELECT to_regclass('archive_migrations')") is None:
            raise NotMigrated("the database was never migrated")
        applied = await read_history(connection)
    known = migrations(folder)
    check_history(applied, known, program)
    missing = known[len(applied) :]
    if needed := [migration for migration in missing if migration.needed_by(program)]:
        raise NotMigrated(f"the database is at version {len(applied)}, this program needs {needed[-1].version}")
    return Schema(len(applied), len(known), tuple(migration.file_name for migration in missing))


async def read_history(connection: AnyConnection) -> list[Applied]:
    """What was applied, in order."""
    rows = await connection.fetch(
        # Before 0007 the table has no such column.
        "SELECT version, name, sha256, to_jsonb(m) ->> 'min_program' AS min_program FROM archive_migrations m ORDER BY version"
    )
    return [Applied(**dict(row)) for row in rows]


def check_history(applied: Sequence[Applied], known: Sequence[Migration], program: Release = PROGRAM) -> None:
    """What this program knows of it is as it knows it, and what it does not know permits it. Raises DatabaseTooNew, or
    DatabaseError for another build's.
    """
    for place, row in enumerate(applied, 1):
        if row.version != place:
            raise _another_build(f"the database has no migration {place:04d}, but {_named(row)}")
    for row, migration in zip(applied, known, strict=False):
        if row.sha256 != migration.sha256:
            raise _another_build(f"migration {_named(row)} was applied in another edition")
    for row in applied[len(known) :]:
        needed = Release.parse(row.min_program or "")
        if needed is None or needed > program:
            by = f"archiver {needed} or later" if needed else "a later archiver (it does not say which)"
            raise DatabaseTooNew(
                f"the database is at version {len(applied)}, and its migration {_named(row)} needs {by}; "
                f"this is archiver {program}, which knows {len(known)}",
                hint=f"upgrade this archiver{f' to {needed} or later' if needed else ''}; to stay with it, restore the copy of "
                "the database from before the upgrade",
            )


def _named(row: Applied) -> str:
    return f"{row.version:04d}_{row.name}"


def _another_build(message: str) -> DatabaseError:
    return DatabaseError(message, hint="this database belongs to a different build; use the one that made it")


def check_encoding(connection: AnyConnection) -> None:
    """Raises DatabaseError for a database that cannot hold every name: it would refuse what is recorded of files long stored."""
    settings: Any = connection.get_settings()
    encoding = settings.server_encoding
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
