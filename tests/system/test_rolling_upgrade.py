"""Two releases, each as a wheel, work side by side before, during and after the migration that the later one brings."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.evidence.keys import SealingKey
from archiver.postgres.migrations import migrations
from archiver.simulator.platform import Simulator
from benchmarks.upgrade.releases import MARK, two_releases
from benchmarks.upgrade.waits import Waits
from tests.conftest import settings_data
from tests.system.conftest import Program, eventually

pytestmark = pytest.mark.timeout(180)

SESSIONS = 400

PACE = 20_000
"""Bytes a second of each recording of 2 KB: with eight at once and two workers, the sessions take three seconds at least."""


def _script(simulator: Simulator, number: int) -> str:
    fault = {"kind": "slow", "bytes_per_second": PACE, "times": None}
    recording = {"file_name": "a.wav", "audio": {"bytes": 2000, "seed": number}, "faults": [fault]}
    simulator.script({"session_id": f"s{number:04}", "recordings": [recording]})
    return f"s{number:04}"


async def test_workers_of_two_releases_archive_side_by_side_across_a_migration(
    tmp_path: Path, simulator: Simulator, database_url: str, sql: asyncpg.Connection[asyncpg.Record]
) -> None:
    this, later = await two_releases(tmp_path)
    data: dict[str, Any] = settings_data(simulator, database_url, tmp_path / "store")
    SealingKey.make(tmp_path / "evidence.key")
    data["evidence"] = {"key_file": str(tmp_path / "evidence.key"), "origin": "archive.example/calls", "interval": "10s"}
    programs = []
    for release in (this, later):
        (tmp_path / release.version).mkdir()
        programs.append(Program(tmp_path / release.version))
        programs[-1].command = release.command
        programs[-1].configure(data)
    older, newer = programs
    ids = [_script(simulator, number) for number in range(SESSIONS)]
    applied = [f"{len(migrations()) + number:04d}_later_{name}" for number, name in enumerate(("columns", "index"), 1)]
    waits = Waits()
    open_transaction = sql.transaction()
    try:
        workers = [await older.start("worker"), await newer.start("worker")]
        for worker in workers:
            await worker.logged("worker_started")
        assert (await workers[1].logged("database_older"))["without"] == applied
        async with waits.watched(database_url):
            producing = [
                asyncio.create_task(waits.produce(database_url, ids[part::2], bot="bot", pause=0.01)) for part in range(2)
            ]
            # Somebody who leaves a transaction open: the migration has to wait, and nobody else may.
            await open_transaction.start()
            await sql.execute("SELECT count(*) FROM archive_queue")
            migrating = await newer.start("migrate")
            told = await migrating.logged("migration_lock_awaited", times=2)
            assert told["held_by"].startswith(f"pid {sql.get_server_pid()} ")
            await open_transaction.rollback()
            migrated = await migrating.ended()
            assert migrated.code == 0, migrated
            assert migrated.stdout.splitlines()[:2] == [f"applied {name}" for name in applied]
            at = await sql.fetchval("SELECT max(applied_at) FROM archive_migrations")
            await asyncio.gather(*producing)
            done = "SELECT count(*) = $1 FROM archive_queue WHERE finished_at IS NOT NULL"
            await eventually(lambda: sql.fetchval(done, SESSIONS), timeout=60)
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            assert (await worker.ended()).code == 143
            assert not [line for line in worker.events if line["level"] == "error"]
        # What is sealed says of each session what its row says, whichever release wrote it, before or after.
        assert (await newer("seal")).code == 0
        assert (await older("audit")).stdout.endswith("clean: nothing was found\n")
    finally:
        for program in programs:
            await program.close()

    rows = await sql.fetch(f"SELECT state, failures, crashes, epoch, {MARK} FROM archive_queue")
    assert {(row["state"], row["failures"], row["crashes"], row["epoch"]) for row in rows} == {("archived", 0, 0, 1)}
    assert len(rows) == SESSIONS
    assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == SESSIONS
    assert len(list((tmp_path / "store").rglob("a.wav"))) == SESSIONS
    assert await sql.fetchval("SELECT count(*) FROM archive_history WHERE event = 'archived'") == SESSIONS
    # Each of them at work before and after.
    at_work = await sql.fetch("SELECT DISTINCT actor, at > $1 AS after FROM archive_history WHERE event = 'archived'", at)
    assert len(at_work) == 4, at_work
    assert 0 < sum(row[MARK] is not None for row in rows) < SESSIONS
    assert await sql.fetchval(
        "SELECT bool_and(indisvalid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname ~ $1", MARK
    )
    longest = {"producers": waits.producers_lock, "workers": waits.workers_lock}
    assert max(longest.values()) < 1, longest
    assert max(longest.values()) > 0, "nobody waited, so nothing was tried"
