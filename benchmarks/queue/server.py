"""One Postgres for a run, and what it costs: settings, databases, processor time."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

from archiver.postgres.embedded.server import embedded_postgres

SETTINGS = {
    # Every tool meets the same server. Whatever makes a commit durable stays at its default: fsync, synchronous_commit,
    # full_page_writes.
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",  # no checkpoint by size falls into a round: one is made before each
    "checkpoint_timeout": "1h",
    "track_commit_timestamp": "on",  # when a row was committed is how the end of a round is told, for each tool alike
}

STATEMENTS = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all", "track_io_timing": "on"}


class Server:
    """A running server. Databases are made in it and dropped again; it ends with its context."""

    def __init__(self, dsn: str, postmaster: int) -> None:
        self.dsn = dsn
        self._postmaster = postmaster

    def named(self, database: str) -> str:
        """The DSN of a database."""
        return urlsplit(self.dsn)._replace(path=f"/{database}").geturl()

    async def administer(self, *commands: str) -> None:
        """Run commands that no transaction may hold."""
        connection = await asyncpg.connect(self.dsn)
        try:
            for command in commands:
                await connection.execute(command, timeout=3600)
        finally:
            await connection.close()

    async def create(self, database: str, template: str = "template0") -> str:
        """A new database, a copy of `template`; returns its DSN."""
        await self.drop(database)
        await self.administer(f"CREATE DATABASE {database} TEMPLATE {template}")
        return self.named(database)

    async def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        await self.administer(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def cpu_seconds(self) -> float:
        """Processor time of the server's processes, those that have ended included."""
        ticks = _ticks(self._postmaster, ended=True)
        for child in _children(self._postmaster):
            ticks += _ticks(child, ended=False)
        return ticks / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def running(folder: Path, *, statements: bool = False) -> AsyncIterator[Server]:
    """A server in a new folder, with SETTINGS; with `statements` it also counts what each statement costs."""
    settings = SETTINGS | (STATEMENTS if statements else {})
    async with embedded_postgres(folder) as dsn:
        connection = await asyncpg.connect(dsn)
        for name, value in settings.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await connection.close()
    async with embedded_postgres(folder) as dsn:  # started anew: most of them need that
        yield Server(dsn, int((folder / "data" / "postmaster.pid").read_text().split()[0]))


def _stat(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return []


def _ticks(process: int, *, ended: bool) -> int:
    stat = _stat(process)
    return sum(int(field) for field in stat[11 : 15 if ended else 13])


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
