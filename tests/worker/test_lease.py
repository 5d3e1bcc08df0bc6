"""The lease: kept while the worker lives, lost when it cannot renew, and then nothing of what was done under it counts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import LeaseLost
from archiver.queue.operators import Operators
from archiver.queue.sessions import MAX_CRASHES, Queue
from archiver.session import part_name
from archiver.worker import claiming
from archiver.worker.lease import Lease, boottime
from tests.conftest import RETRY
from tests.worker.conftest import Logged, TcpProxy, WorkerHarness

ONE_STALL = {"kind": "stall", "at": 1000, "times": 1}

LONG_STALL: dict[str, Any] = {"audio": {"bytes": 2_000_000}, "faults": [{"kind": "stall", "at": 1_500_000, "times": 1}]}
"""Stalls when something of it lies on the disk: what is shorter than a block stays in memory until it is whole."""


async def test_a_lease_is_renewed_while_a_download_takes_longer_than_it(harness: WorkerHarness, logged: Logged) -> None:
    (one,) = await harness.scripted(1, faults=[{"kind": "slow", "bytes_per_second": 400}])
    assert (await harness.drained(harness.settings(worker={"lease_seconds": 3}))).complete
    row = (await harness.sessions())[one]
    assert (row["state"], row["crashes"]) == ("archived", 0)
    assert logged.named("session_lease_lost", "worker_lease_lost", "session_rescued") == []


async def test_a_worker_that_lost_its_lease_drops_what_it_did_and_goes_on_as_a_new_one(
    harness: WorkerHarness, logged: Logged
) -> None:
    ids = await harness.scripted(3, **LONG_STALL)
    async with harness.shift(harness.settings(worker={"lease_seconds": 1.5}), drain=True) as shift:
        await harness.downloading(3)
        (old,) = await harness.rows("SELECT id FROM archive_workers")
        await harness.parts_are(3)
        await harness.rows("UPDATE archive_workers SET expires_at = clock_timestamp()")
        await logged.until("worker_lease_lost")
        ended = await shift.ended()
    assert ended.complete
    assert shift.worker.tally.lost == 3
    assert harness.parts() == []
    sessions = await harness.sessions()
    assert {(row["state"], row["crashes"], row["failures"]) for row in sessions.values()} == {("archived", 0, 0)}, "none died"
    workers = [entry["worker"] for entry in logged.named("worker_started")]
    assert workers[0] == old["id"] < workers[1]
    assert {entry["session"] for entry in logged.named("session_lease_lost")} == set(ids)
    assert await harness.events(ids[0]) == ["enqueued", "claimed", "handed_back", "claimed", "asked", "stored", "archived"]
    await harness.assert_accounted_for()


async def test_a_worker_cut_off_from_its_database_stops_before_others_take_over(
    harness: WorkerHarness, proxy: TcpProxy, logged: Logged
) -> None:
    """Its line to the database hangs; another worker rescues its sessions and finishes them; then the first comes back."""
    ids = await harness.scripted(3, faults=[ONE_STALL])
    settings = harness.settings(database={"url": proxy.url}, worker={"lease_seconds": 1.5})
    async with harness.shift(settings) as first:
        await harness.downloading(3)
        proxy.hang()
        await logged.until("worker_lease_lost")
        # Before its lease has run out in the database it has dropped everything: by the clocks of both, read in this order.
        (row,) = await harness.rows(
            "SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 AS left FROM archive_workers"
        )
        assert row["left"] > first.worker._registration.lease._until - boottime()
        await harness.parts_are(0)
        assert harness.files() == {}
        assert (await harness.drained(harness.settings(worker={"lease_seconds": 1.5}))).complete
        before = harness.files()
        proxy.flow()
        await harness.eventually("SELECT 1 FROM archive_workers")
        (extra, *_) = await harness.scripted(1)
        assert extra == ids[0]
        await first.stopped()
    assert harness.files() == before
    assert first.worker.tally.files == 0
    sessions = await harness.sessions()
    assert {row["state"] for row in sessions.values()} == {"archived"}
    await harness.assert_accounted_for()


async def test_a_database_that_is_away_for_longer_than_the_lease_again_and_again_fails_no_session(
    harness: WorkerHarness, proxy: TcpProxy, logged: Logged
) -> None:
    """Five times, which is how often a session may take a worker down."""
    ids = await harness.scripted(2, faults=[{"kind": "stall", "at": 1000, "times": MAX_CRASHES}])
    settings = harness.settings(database={"url": proxy.url}, worker={"lease_seconds": 1.5})
    async with harness.shift(settings) as shift:
        for outage in range(1, MAX_CRASHES + 1):
            await harness.downloading(2 * outage)
            proxy.hang()
            await logged.until("worker_lease_lost", times=outage)
            # Nobody else is there to rescue; a rescuer that nobody restrains finds what the first has lost.
            await harness.eventually("SELECT 1 FROM archive_workers WHERE expires_at < clock_timestamp()")
            if outage % 2:
                assert len(await Queue(harness.database, RETRY).rescue(actor="another")) == 2
            proxy.flow()
            await logged.until("claims_returned", times=outage)
        await harness.eventually("SELECT 1 FROM archive_queue HAVING every(state = 'archived')")
        await shift.stopped()
    sessions = await harness.sessions()
    assert {(row["state"], row["crashes"], row["failures"]) for row in sessions.values()} == {("archived", 0, 0)}
    assert set(sessions) == set(ids)
    await harness.assert_accounted_for()


async def test_a_loop_that_stalled_is_told_from_a_database_that_did_not_answer() -> None:
    async def silent(worker: int, length: timedelta) -> bool:
        await asyncio.sleep(60)
        return True

    async def refusing(worker: int, length: timedelta) -> bool:
        return False

    stalled = Lease(1, timedelta(seconds=0.3), boottime())
    keeping = asyncio.create_task(stalled.keep(silent))
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251  # that the loop stalls is the point
    await keeping
    assert stalled.stalled
    leases = [Lease(1, timedelta(seconds=2), boottime()) for _ in range(2)]
    await asyncio.gather(*(lease.keep(renew) for lease, renew in zip(leases, (silent, refusing), strict=True)))
    assert [(lease.lost, lease.stalled) for lease in leases] == [(True, False)] * 2


async def test_a_session_that_was_cancelled_meanwhile_stays_cancelled(harness: WorkerHarness, logged: Logged) -> None:
    (one,) = await harness.scripted(1, faults=[{"kind": "slow", "bytes_per_second": 1000}])
    async with harness.shift(drain=True) as shift:
        await harness.downloading(1)
        await harness.rows(
            """UPDATE archive_queue SET state = 'cancelled', reason = 'by hand', worker_id = NULL, epoch = epoch + 1,
               finished_at = now()"""
        )
        await shift.ended()
    row = (await harness.sessions())[one]
    assert (row["state"], row["reason"]) == ("cancelled", "by hand")
    assert await harness.rows("SELECT * FROM archived_recordings") == []
    assert shift.worker.tally.lost == 1
    (told,) = logged.named("session_lease_lost")
    assert (told["session"], told["bot"]) == (one, "bot")


async def test_a_session_that_is_cancelled_while_it_downloads_is_let_go(
    harness: WorkerHarness, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "COMPARE_SECONDS", 0.1)
    await harness.scripted(2, faults=[ONE_STALL])
    async with harness.shift(harness.settings(worker={"concurrency": 2})) as shift:
        await harness.downloading(2)  # every slot is taken: that must not keep it from looking
        await Operators(harness.database).cancel(ids=None, bot=None, kind=None, reason="by hand", actor="test")
        await logged.until("session_lease_lost")
        await shift.stopped()
    assert shift.worker.tally.lost == 2
    assert harness.parts() == []
    assert harness.files() == {}
    assert (await harness.states()) == {"cancelled": 2}


def test_a_lease_cannot_be_used_a_moment_longer_than_nine_tenths() -> None:
    length = timedelta(seconds=10)
    lease = Lease(1, length, boottime() - 8.9)
    assert 0 < lease.remaining < 0.2
    lease.guard()
    lease.renewed(boottime())
    assert lease.remaining > 8
    assert Lease(1, length, boottime() - 9.1).lost


def test_a_lost_lease_stays_lost_whatever_answer_still_comes() -> None:
    for lost in (Lease(1, timedelta(seconds=10), boottime() - 9.1), Lease(1, timedelta(seconds=10), boottime())):
        lost.give_up()
        lost.renewed(boottime())
        assert lost.remaining == 0
        with pytest.raises(LeaseLost):
            lost.guard()


async def test_what_a_killed_worker_left_is_taken_over_and_swept(harness: WorkerHarness, logged: Logged) -> None:
    ids = await harness.scripted(4, **LONG_STALL)
    config = harness.config_file(lease_seconds=3)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await harness.downloading(4)
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'claimed' HAVING count(*) = 4")
        await harness.parts_are(4)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert len(harness.parts()) == 4
    mine = harness.root / "not-ours.part"
    mine.write_bytes(b"?")
    ended = await harness.drained(harness.settings(worker={"lease_seconds": 3}))
    assert ended.complete
    assert harness.parts() == []
    assert mine.read_bytes() == b"?"
    mine.unlink()
    assert {row["crashes"] for row in (await harness.sessions()).values()} == {1}
    assert {entry["session"] for entry in logged.named("session_rescued")} == set(ids)
    assert {entry["session"] for entry in logged.named("leftover_removed")} == set(ids)
    await harness.assert_accounted_for()


async def test_a_leftover_behind_a_link_is_told_of(harness: WorkerHarness, logged: Logged, tmp_path: Path) -> None:
    await harness.rows("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')")
    (row,) = await harness.rows("SELECT id FROM archive_queue")
    await harness.rows("INSERT INTO archive_leftovers (queue_id, worker_id, epoch) VALUES ($1, 99, 1)", row["id"])
    (tmp_path / "elsewhere").mkdir()
    harness.root.mkdir(exist_ok=True)
    (harness.root / "bot=bot").symlink_to(tmp_path / "elsewhere")
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_leftovers)")
        await shift.stopped()
    (told,) = logged.named("upload_left_behind")
    assert (told["session"], told["error"]) == ("s-1", "ELOOP")
    assert "bot=bot is a symbolic link" in told["message"]


async def test_a_leftover_of_a_row_that_can_have_no_key_is_forgotten(harness: WorkerHarness, logged: Logged) -> None:
    """A row that others wrote, of a kind that climbs, once held by a worker that died: it must not take the others down."""
    await harness.rows("INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', 's-1', '../../../../etc')")
    (row,) = await harness.rows("SELECT id FROM archive_queue")
    await harness.rows("INSERT INTO archive_leftovers (queue_id, worker_id, epoch) VALUES ($1, 99, 1)", row["id"])
    async with harness.shift() as shift:
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_leftovers)")
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'failed'")
        await shift.stopped()
    assert part_name(row["id"], 99, 1) == f".session-{row['id']}.worker-99.epoch-1.part"
    assert logged.named("leftover_removed") == logged.named("upload_left_behind") == []
