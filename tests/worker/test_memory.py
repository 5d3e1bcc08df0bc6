"""Memory stays constant, whatever the recordings' length."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

import pytest

from .conftest import Plant, session_id

FILES, MEGABYTES = map(int, os.environ.get("ARCHIVER_MEMORY_TEST", "8x40").split("x"))
"""So many files at once, of so many megabytes each; the full loads are ARCHIVER_MEMORY_TEST=16x200 and 64x200."""

LIMIT_MEGABYTES = 150 if FILES <= 16 else 300

_MEASURED = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stderr=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.timeout(900)
async def test_long_recordings_at_once_fit_into_little_memory(
    plant: Plant, record_property: Callable[[str, object], None]
) -> None:
    ids = [session_id(number) for number in range(FILES)]
    for one in ids:
        plant.simulator.script({"session_id": one, "recordings": [{"audio": {"bytes": MEGABYTES * 1_000_000}}]})
    await plant.enqueue(*ids)
    config = plant.config_file(concurrency=FILES)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MEASURED, sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain"),
        stdout=asyncio.subprocess.PIPE,
    )
    begun = await plant.simulator.wait_for(lambda report: report["media"]["requests"] == FILES, timeout=60)
    assert begun["media"]["complete"] == 0  # all of them at once
    out, _ = await process.communicate()
    code, kilobytes = map(int, out.split())
    assert code == 0
    assert await plant.states() == {"archived": FILES}
    assert sum(path.stat().st_size for path in plant.root.rglob("*.wav")) == FILES * MEGABYTES * 1_000_000
    record_property("peak_megabytes", kilobytes / 1024)
    print(f"peak of the worker: {kilobytes / 1024:.0f} MB")
    assert kilobytes / 1024 < LIMIT_MEGABYTES
