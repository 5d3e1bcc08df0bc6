"""Memory stays constant, whatever the recordings' length."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.worker.conftest import WorkerHarness, session_id

FILES, MEGABYTES = map(int, os.environ.get("ARCHIVER_MEMORY_TEST", "8x40").split("x"))
"""So many files at once, of so many megabytes each; the full loads are ARCHIVER_MEMORY_TEST=16x200 and 64x200."""

LIMIT_MEGABYTES = 150 if FILES <= 16 else 300

INLINE_MEGABYTES = 50

_MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


async def start_draining(config: Path) -> asyncio.subprocess.Process:
    """A worker whose memory is measured."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MEASURED, sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def drained(process: asyncio.subprocess.Process) -> tuple[int, float, str]:
    """How it ended: its exit code, its peak in megabytes, its log."""
    out, log = await process.communicate()
    code, kilobytes = map(int, out.split())
    print(f"peak of the worker: {kilobytes / 1024:.0f} MB")
    return code, kilobytes / 1024, log.decode()


@pytest.mark.timeout(900)
async def test_long_recordings_at_once_fit_into_little_memory(
    harness: WorkerHarness, record_property: Callable[[str, object], None]
) -> None:
    ids = [session_id(number) for number in range(FILES)]
    for one in ids:
        harness.simulator.script({"session_id": one, "recordings": [{"audio": {"bytes": MEGABYTES * 1_000_000}}]})
    await harness.enqueue(*ids)
    process = await start_draining(harness.config_file(concurrency=FILES))
    begun = await harness.simulator.wait_for(lambda report: report["media"]["requests"] == FILES, timeout=60)
    assert begun["media"]["complete"] == 0  # all of them at once
    code, megabytes, _ = await drained(process)
    assert code == 0
    assert await harness.states() == {"archived": FILES}
    assert sum(path.stat().st_size for path in harness.root.rglob("*.wav")) == FILES * MEGABYTES * 1_000_000
    record_property("peak_megabytes", megabytes)
    assert megabytes < LIMIT_MEGABYTES


@pytest.mark.timeout(300)
async def test_recordings_inside_answers_fit_into_as_little(
    harness: WorkerHarness, record_property: Callable[[str, object], None]
) -> None:
    """Several of fifty megabytes at once, and one that is too long, which is nobody's trouble but its own."""
    *ids, too_long = [session_id(number) for number in range(5)]
    for one in ids:
        harness.simulator.script({"session_id": one, "recordings": [{"audio": {"bytes": INLINE_MEGABYTES * 1_000_000}}]})
    harness.simulator.script({"session_id": too_long, "recordings": [{"audio": {"bytes": 70_000_000}}]})
    await harness.enqueue(*ids, too_long)
    config = harness.config_file(
        bot={"api": "v1"}, transfer={"max_inline": f"{INLINE_MEGABYTES}MB"}, log={"level": "debug", "format": "json"}
    )
    code, megabytes, log = await drained(await start_draining(config))
    assert code == 3
    sessions = await harness.sessions()
    failed = sessions.pop(too_long)
    assert (failed["state"], failed["reason"], failed["failures"]) == ("failed", "recording_too_large", 1)
    assert failed["detail"]["expected"] == INLINE_MEGABYTES * 1_000_000 < failed["detail"]["received"]
    assert "transfer.max_inline" in failed["detail"]["hint"]
    assert {one["state"] for one in sessions.values()} == {"archived"}
    await harness.assert_accounted_for()
    assert harness.parts() == []
    assert harness.simulator.client_secret not in log
    assert "eyJ" not in log
    assert len(log) < 20_000, "no audio in it"
    record_property("peak_megabytes", megabytes)
    assert megabytes < LIMIT_MEGABYTES
