"""Whatever stops a worker in the middle of large recordings: no part of one is visible, and nothing stays behind."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.queue.operators import Operators
from archiver.worker import claiming
from tests.disks import disk, remount
from tests.worker.conftest import Logged, WorkerHarness

STALLED = {"audio": {"bytes": 3_000_000}, "faults": [{"kind": "stall", "at": 2_500_000, "times": 1}]}
"""Most of each lies on the disk when nothing more comes."""


async def nothing_stays(harness: WorkerHarness, **states: int) -> None:
    """After the next start, which archives what is still to be archived."""
    assert not [name for name in harness.files() if not name.endswith(".part")], "a part of a recording is visible"
    assert (await harness.drained(harness.settings(worker={"lease_seconds": 2}))).complete
    assert await harness.states() == states
    assert harness.parts() == []
    await harness.assert_accounted_for()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
async def test_a_signal_in_the_middle_of_uploads(harness: WorkerHarness, number: signal.Signals) -> None:
    await harness.scripted(3, **STALLED)
    config = harness.config_file(lease_seconds=2, drain_grace_seconds=0.2)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain",
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await harness.simulator.wait_for(lambda report: report["media"]["bytes"] >= 3 * 2_500_000)
        await harness.parts_are(3)
        process.send_signal(number)
        code = await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if number == signal.SIGTERM:
        assert code == 128 + signal.SIGTERM
        assert harness.parts() == [], "a worker that leaves in order takes its own parts along"
    await nothing_stays(harness, archived=3)


async def test_a_cancelled_session_in_the_middle_of_its_upload(
    harness: WorkerHarness, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "COMPARE_SECONDS", 0.1)
    await harness.scripted(2, **STALLED)
    async with harness.shift() as shift:
        await harness.parts_are(2)
        await Operators(harness.database).cancel(ids=None, bot=None, kind=None, reason="by hand", actor="test")
        await harness.parts_are(0)
        await shift.stopped()
    await nothing_stays(harness, cancelled=2)


@pytest.fixture
def small_disk(harness: WorkerHarness) -> Iterator[Path]:
    """The store on a file system of four megabytes."""
    with disk(harness.root, "4m"):
        yield harness.root


async def test_a_disk_that_fills_up_in_the_middle_of_uploads(harness: WorkerHarness, small_disk: Path, logged: Logged) -> None:
    """Two of three megabytes do not fit: what was begun goes away, no attempt is lost, and with room again both are archived."""
    await harness.scripted(2, audio={"bytes": 3_000_000})
    async with harness.shift() as shift:
        await logged.until("store_unavailable")
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'pending' AND reason = 'store_unavailable'")
        await harness.parts_are(0)
        remount(small_disk, "size=64m")
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 2", timeout=30)
        await shift.stopped()
    assert {row["failures"] for row in (await harness.sessions()).values()} == {0}
    assert harness.parts() == []
    await harness.assert_accounted_for()
