"""How a worker ends: finished or handed back, never half way, and never hanging on what hangs."""

from __future__ import annotations

import asyncio
import time

import pytest

from archiver.errors import DatabaseError
from archiver.worker import loop as worker_module
from archiver.worker.upkeep import Upkeep
from tests.worker.conftest import Logged, TcpProxy, WorkerHarness, session_id

STALL = {"kind": "stall", "at": 1000, "times": None}


async def assert_handed_back(harness: WorkerHarness, count: int) -> None:
    sessions = await harness.sessions()
    assert [row["state"] for row in sessions.values()] == ["pending"] * count
    for row in sessions.values():
        assert (row["failures"], row["crashes"], row["checks"]) == (0, 0, 0)
    assert harness.files() == {}


async def test_stop_finishes_what_runs_and_claims_nothing_more(harness: WorkerHarness) -> None:
    await harness.scripted(6, faults=[{"kind": "slow", "bytes_per_second": 4000}])
    async with harness.shift(harness.settings(worker={"concurrency": 2})) as shift:
        await harness.downloading(1)
        await shift.stopped()
    assert await harness.states() == {"archived": 2, "pending": 4}
    assert await harness.rows("SELECT * FROM archive_workers") == []
    await harness.assert_accounted_for()


async def test_what_does_not_finish_within_the_grace_is_handed_back(harness: WorkerHarness) -> None:
    await harness.scripted(3, faults=[STALL])
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 0.2})) as shift:
        await harness.downloading(3)
        await shift.stopped(timeout=5)
    await assert_handed_back(harness, 3)
    assert {row["reason"] for row in (await harness.sessions()).values()} == {"worker_stopped"}
    assert await harness.rows("SELECT * FROM archive_workers") == []


async def test_a_hurried_worker_does_not_wait_for_the_grace(harness: WorkerHarness) -> None:
    await harness.scripted(3, faults=[STALL])
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 3600})) as shift:
        await harness.downloading(3)
        shift.worker.stop()
        await shift.stopped(hurry=True, timeout=5)
    await assert_handed_back(harness, 3)


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_a_cancelled_run_hands_back_all_the_same(harness: WorkerHarness, times: int) -> None:
    """Cancelled again and again while it leaves, it hurries."""
    await harness.scripted(3, faults=[STALL])
    before = asyncio.all_tasks()
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 1 if times == 1 else 3600})) as shift:
        await harness.downloading(3)
        for _ in range(times):
            shift.run.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await shift.ended(10)
        await assert_handed_back(harness, 3)
        assert await harness.rows("SELECT * FROM archive_workers") == []
        left = {task.get_name() for task in asyncio.all_tasks() - before}
        assert not {name for name in left if name.startswith(("session", "lease", "listen", "upkeep", "claim"))}


async def test_sessions_that_wait_for_a_slot_are_handed_back_too(harness: WorkerHarness) -> None:
    """More may have been claimed than there are slots (a probe besides): none is forgotten."""
    await harness.scripted(3, faults=[STALL])
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 0})) as shift:
        slots = shift.worker._attempts._slots
        slots.in_use = slots.size - 1
        await harness.downloading(1)
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'claimed' HAVING count(*) = 3")
        await shift.stopped(timeout=5)
    await assert_handed_back(harness, 3)


async def test_a_helper_that_dies_takes_the_worker_down_in_order(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(self: object) -> None:
        await harness.downloading(3)
        raise ZeroDivisionError

    monkeypatch.setattr(Upkeep, "_remove_leftovers", die)
    await harness.scripted(3, faults=[STALL])
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 0.1})) as shift:
        with pytest.raises(ZeroDivisionError):
            await shift.ended(10)
    await assert_handed_back(harness, 3)


async def test_a_worker_that_never_came_to_start_says_why(harness: WorkerHarness) -> None:
    await harness.rows("DROP TABLE archive_workers CASCADE")
    async with harness.shift() as shift:
        with pytest.raises(DatabaseError):
            await shift.ended(10)


async def test_a_database_that_hangs_does_not_keep_a_worker_from_leaving(harness: WorkerHarness, proxy: TcpProxy) -> None:
    """What cannot be handed back any more is left to the lease; another worker takes it over."""
    ids = await harness.scripted(3, faults=[{"kind": "stall", "at": 1000, "times": 1}])
    settings = harness.settings(database={"url": proxy.url}, worker={"lease_seconds": 2, "drain_grace_seconds": 0})
    async with harness.shift(settings) as shift:
        await harness.downloading(3)
        proxy.hang()
        began = time.monotonic()
        await shift.stopped(timeout=15)
        assert time.monotonic() - began < worker_module.FAREWELL_SECONDS + 2
        assert harness.files() == {}
    proxy.flow()
    assert (await harness.drained(harness.settings(worker={"lease_seconds": 2}))).complete
    sessions = await harness.sessions()
    assert [row["state"] for row in sessions.values()] == ["archived"] * 3
    assert sorted(sessions) == ids
    await harness.assert_accounted_for()


async def test_a_hung_download_does_not_stop_the_others(harness: WorkerHarness, logged: Logged) -> None:
    hung, *others = await harness.scripted(30)
    recording = {"file_name": "a.wav", "audio": {"bytes": 2000}, "faults": [STALL]}
    harness.simulator.script({"session_id": hung, "recordings": [recording]})
    async with harness.shift(harness.settings(worker={"concurrency": 2})) as shift:
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 29")
        await shift.stopped(hurry=True)
    sessions = await harness.sessions()
    assert sessions[hung]["state"] == "pending"
    assert {sessions[one]["state"] for one in others} == {"archived"}
    (told,) = logged.named("worker_stopped")
    assert (told["archived"], told["files"], told["bytes"] >= 29 * 2000) == (29, 29, True)


async def test_a_recording_inside_an_answer_is_left_without_a_trace_and_comes_again(harness: WorkerHarness) -> None:
    one = session_id(1)
    stalled = {"audio": {"bytes": 4_000_000}, "faults": [{"kind": "stall", "at": 3_000_000}]}
    harness.simulator.script({"session_id": one, "recordings": [{"audio": {"bytes": 2000}}, stalled]})
    await harness.enqueue(one)
    settings = harness.settings(bot={"api": "v1"})
    async with harness.shift(settings) as shift:
        await harness.parts_are(1)
        await shift.stopped(hurry=True)
    assert harness.parts() == []
    row = (await harness.sessions())[one]
    assert (row["state"], row["reason"], row["failures"]) == ("pending", "worker_stopped", 0)
    assert (await harness.drained(settings)).complete
    await harness.assert_accounted_for()
    assert (await harness.events(one)).count("stored") == 2
