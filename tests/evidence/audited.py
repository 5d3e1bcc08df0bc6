"""A small archive of every kind of session, really sealed, to be copied, edited and audited."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.whole import audit
from archiver.evidence.keys import SealingKey
from archiver.outcome import Failed, NotReady, Unavailable
from archiver.queue.sessions import CallFacts
from archiver.stores import MARKER
from tests.evidence.sealing import PATH, SealedArchive, sealed_archive

CALL = datetime(2026, 3, 1, 12, tzinfo=UTC)
LONG_AGO = time.time() - 30 * 86400

TABLES = (
    "archive_queue",
    "archived_recordings",
    "archive_ledger_outbox",
    "archive_ledger_head",
    "archive_ledger_batches",
    "archive_ledger",
)
_numbers = itertools.count()


async def fill(archive: SealedArchive) -> None:
    """Thirteen sessions in six batches, of which one waits."""
    await archive.end("s-old", files={"a.wav": b"adopted"})
    await archive.begin()
    await archive.end(
        "s-two", files={"a.wav": b"one", "b.wav": b"two!", "transcriptions.json": b"{}"}, user_id="ana", metadata={"a": 1}
    )
    await archive.end("s-one", files={"a.wav": b"single"}, started_at=CALL)
    await archive.end("s-none", Unavailable("media_unavailable", {"message": "there is none"}))
    await archive.sealer.finish()
    await archive.end("s-accepted", Failed("conflict", {"stored": 1}), files={"a.wav": b"partly"})
    await archive.end("s-again", files={"a.wav": b"first"})
    await archive.add("s-cancelled")
    await archive.operators.cancel(reason="no_consent", actor="ana@desk", ids=["s-cancelled"])
    await archive.sealer.finish()
    await archive.operators.accept(reason="known", actor="ana@desk", ids=["s-accepted"])
    await archive.retry("s-again")
    await archive.sealer.finish()
    await save(archive, "earlier")
    await archive.end("s-again", files={"a.wav": b"first", "b.wav": b"second"})
    await archive.add("+49 170 1234567")
    await archive.end("s-voice", files={"a.wav": b"voicemail"}, kind="voicemail")
    await archive.end("s-slow", NotReady("media_in_progress"))
    await archive.sealer.finish()
    await archive.queue.add_call_facts("bot", [CallFacts("s-one", "recording", CALL, CALL, "ben", {"caller": "+49 30 1"})])
    await archive.end("s-back", Failed("conflict"))
    await archive.sealer.finish()
    await archive.retry("s-back")
    await archive.add("s-waiting")
    await archive.sealer.finish()
    await archive.end("s-fresh", files={"a.wav": b"not sealed yet"})


@dataclass(frozen=True)
class Original:
    """The archive that copies are made of: its database, its folder, and what its store has."""

    url: str
    folder: Path
    objects: dict[str, bytes]


def make_original(url: str, template: str, worker_id: str, folder: Path) -> Original:
    """Make it."""
    name = f"sealed_{worker_id}_{next(_numbers)}"
    base = url.rpartition("/")[0]

    async def make() -> None:
        await _administer(url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        async with sealed_archive(f"{base}/{name}", folder) as archive:
            await fill(archive)
            await save(archive, "saved")
            # An owner can do without them.
            for row in await archive.fetch(
                "SELECT conrelid::regclass::text AS table, conname FROM pg_constraint WHERE contype = 'c' "
                "AND conrelid IN ('archive_queue'::regclass, 'archived_recordings'::regclass)"
            ):
                await archive.fetch(f"ALTER TABLE {row['table']} DROP CONSTRAINT {row['conname']}")

    asyncio.run(make())
    store = folder / "store"
    (store / "quarantine").mkdir()
    (store / "quarantine/body.html").write_bytes(b"<html>")
    (store / ".left.part").write_bytes(b"half")
    (store / MARKER).write_bytes(b"{}")
    make_old(store)
    objects = {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    return Original(f"{base}/{name}", folder, objects)


def make_old(folder: Path) -> None:
    """As if all that lies there had been there for long."""
    for path in folder.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)


async def _administer(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def save(archive: SealedArchive, name: str) -> None:
    """Keep all tables of the archive as they are now."""
    await archive.fetch(f"CREATE SCHEMA {name}")
    for table in TABLES:
        await archive.fetch(f"CREATE TABLE {name}.{table} AS TABLE {table}")


@dataclass
class Copy:
    """A copy of the store, and the database with it."""

    original: Original
    archive: SealedArchive
    root: Path
    wanted: Wanted
    edited: bool = False

    async def restore(self) -> None:
        """Put back what was edited."""
        if self.edited:
            await self.put_tables("saved", TABLES)
            self.edited = False
        before = self.original.objects
        for path in sorted(self.root.rglob("*"), reverse=True):
            key = str(path.relative_to(self.root))
            if path.is_symlink() or (path.is_file() and key not in before):
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        for key, content in before.items():
            path = self.root / key
            if not path.exists() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    async def put_tables(self, name: str, tables: Iterable[str]) -> None:
        """Tables as they were kept under this name."""
        await self.sql(
            "; ".join(
                f"DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE {name}.{table}" for table in tables
            )
        )

    async def sql(self, statement: str, *values: Any) -> None:
        """An edit of the database, by its owner. Nothing of ours is triggered."""
        self.edited = True
        async with self.archive.database.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            await connection.execute(statement, *values)

    async def audit(self, **changed: Any) -> Report:
        """What an audit says."""
        wanted = Wanted(**{**vars(self.wanted), **changed})
        make_old(self.root)
        return await audit(self.archive.database, self.archive.store, wanted)

    async def found(self, **changed: Any) -> set[str]:
        """The names of what an audit finds."""
        return set((await self.audit(**changed)).findings.counts)

    def path(self, pattern: str) -> Path:
        """The one file of this pattern."""
        (found,) = self.root.glob(pattern)
        return found


@asynccontextmanager
async def copied(original: Original, folder: Path) -> AsyncIterator[Copy]:
    """A copy to edit."""
    shutil.copytree(original.folder, folder, dirs_exist_ok=True)
    async with sealed_archive(original.url, folder) as archive:
        key = SealingKey.load(folder / "evidence.key").public
        copy = Copy(original, archive, folder / "store", Wanted(PATH, timedelta(days=7), deep=True, key=key))
        try:
            yield copy
        finally:
            async with archive.database.connection() as connection, connection.transaction():
                await connection.execute("SET LOCAL session_replication_role = replica")
                for table in TABLES:
                    await connection.execute(
                        f"DELETE FROM {table}; INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE saved.{table}"
                    )
