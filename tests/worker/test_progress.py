"""A large recording is never silent: the row and the log of its worker tell of it on its way. A small one costs nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest
import structlog

from archiver.queue.sessions import Queue
from archiver.worker import progress
from tests.worker.conftest import Logged, WorkerHarness

SLOW = {"kind": "slow", "bytes_per_second": 20_000}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become tenths of them."""
    for name in ("READ_SECONDS", "WRITE_SECONDS", "TELL_SECONDS"):
        monkeypatch.setattr(progress, name, getattr(progress, name) / 10)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Logged:
    seen = Logged()
    monkeypatch.setattr(progress, "log", structlog.wrap_logger(None, [seen], structlog.make_filtering_bound_logger(0)))
    return seen


async def written(harness: WorkerHarness, condition: str) -> dict[str, Any]:
    """The worker's progress, as soon as that is so."""
    (row,) = await harness.eventually(f"SELECT progress FROM archive_workers WHERE progress_at IS NOT NULL AND {condition}")
    found: dict[str, Any] = row["progress"]
    return found


@pytest.mark.usefixtures("quick")
async def test_a_large_recording_is_in_the_workers_row_until_it_is_stored(harness: WorkerHarness) -> None:
    (one,) = await harness.scripted(1, audio={"bytes": 40_000}, faults=[SLOW])
    async with harness.shift() as shift:
        first = await written(harness, "progress->>'running' = '1' AND (progress->>'bytes')::int > 0")
        later = await written(harness, f"(progress->>'bytes')::int > {first['bytes']}")
        (transfer,) = later["transfers"]
        assert (transfer["bot"], transfer["session_id"], transfer["file_name"]) == ("bot", one, "a.wav")
        assert first["bytes"] < later["bytes"] == transfer["bytes"] <= later["received_bytes"]
        assert (transfer["total"], later["total"]) == (40_000, 40_000)
        assert 5_000 < transfer["bytes_per_second"] < 60_000
        last = await written(harness, "progress->>'running' = '0'")
        assert (last["transfers"], last["bytes"], last["received_bytes"]) == ([], 0, 40_000)
        await shift.stopped()
    assert await harness.states() == {"archived": 1}


@pytest.mark.usefixtures("quick")
async def test_a_large_recording_is_logged_again_and_again(
    harness: WorkerHarness, told: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "TELL_SECONDS", 0.3)
    (one,) = await harness.scripted(1, audio={"bytes": 30_000}, faults=[SLOW])
    assert (await harness.drained()).complete
    lines = told.named("transfer_progressed")
    assert 2 <= len(lines) <= 6
    assert all((line["session"], line["bot"], line["file"], line["total"]) == (one, "bot", "a.wav", 30_000) for line in lines)
    assert [line["bytes"] for line in lines] == sorted({line["bytes"] for line in lines})
    assert all(line["log_level"] == "info" and line["bytes_per_second"] > 0 for line in lines)


async def test_small_recordings_write_nothing_of_the_kind(harness: WorkerHarness, told: Logged) -> None:
    await harness.rows("CREATE TABLE written (progress jsonb)")
    await harness.rows("CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
                     "$$ BEGIN INSERT INTO written VALUES (NEW.progress); RETURN NEW; END $$")  # fmt: skip
    await harness.rows("CREATE TRIGGER note BEFORE UPDATE OF progress ON archive_workers FOR EACH ROW EXECUTE FUNCTION note()")
    # One after another for twice as long as a large one may be silent.
    await harness.scripted(20, audio={"bytes": 4000}, faults=[SLOW])
    began = time.monotonic()
    assert (await harness.drained(harness.settings(worker={"concurrency": 1}))).complete
    assert time.monotonic() - began > progress.WRITE_SECONDS + 1
    assert await harness.rows("SELECT * FROM written") == []
    assert told.entries == []


@pytest.mark.usefixtures("quick")
async def test_a_database_that_is_away_keeps_no_transfer_waiting(harness: WorkerHarness, told: Logged) -> None:
    """The column is away, and so every write fails; the transfer goes on, and the worker keeps its lease."""
    await harness.rows("ALTER TABLE archive_workers RENAME COLUMN progress TO elsewhere")
    await harness.scripted(1, audio={"bytes": 60_000}, faults=[SLOW])
    async with harness.shift(harness.settings(worker={"lease_seconds": 2}), drain=True) as shift:
        assert (await shift.ended()).complete
    assert len(told.named("progress_write_failed")) > 1
    assert shift.worker.tally.lost == 0


async def test_a_worker_writes_to_its_own_row_alone_and_only_while_its_lease_holds(harness: WorkerHarness) -> None:
    queue = Queue(harness.database, harness.settings().retry)
    for host, lease in (("a", "1 h"), ("b", "1 h"), ("c", "0 s")):
        sql = "INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ($1, 1, '0', now() + $2::text::interval)"
        await harness.rows(sql, host, lease)
    mine, other, dead = [row["id"] for row in await harness.rows("SELECT id FROM archive_workers ORDER BY host")]
    assert await queue.record_progress(mine, {"running": 1, "transfers": [{"file_name": "a\0\ud800.wav"}]})
    assert not await queue.record_progress(dead, {"running": 1})
    assert not await queue.record_progress(10**9, {"running": 1})
    rows = await harness.rows("SELECT id, progress->>'running' AS running, progress_at FROM archive_workers ORDER BY host")
    assert [(row["id"], row["running"]) for row in rows] == [(mine, "1"), (other, None), (dead, None)]
    assert rows[0]["progress_at"] is not None
