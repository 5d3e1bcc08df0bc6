"""Worker processes share one bot's budget: the platform counts, and never has to refuse. Timings are in benchmarks/fleet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.acceptance.conftest import Program
from tests.conftest import settings_data

pytestmark = pytest.mark.once

WORKERS = 3


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    """The command line, still unconfigured."""
    program = Program(tmp_path)
    yield program
    await program.close()


def configured(program: Program, platform: Simulator, database_url: str) -> None:
    """One bot, which is allowed exactly what its platform allows."""
    data = settings_data(platform, database_url, program.folder / "store")
    bots = data["bots"]
    assert isinstance(bots, list)
    bots[0]["rate_limits"] = list(platform.settings.account_rate_limits)
    program.configure(data)
    platform.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.1}}]})


async def enqueue(database_url: str, count: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        query = "INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's' || n FROM generate_series(1, $1::integer) n"
        await connection.execute(query, count)
    finally:
        await connection.close()


async def most_claimed_within_six_seconds(database_url: str) -> int:
    """A claim draws a call; six seconds are a tenth of the window."""
    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetchval(
            "SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY at RANGE BETWEEN '6 s' PRECEDING AND CURRENT ROW) AS n "
            "FROM archive_events WHERE event = 'claimed') c"
        )
    finally:
        await connection.close()
    assert isinstance(found, int)
    return found


async def test_processes_that_share_a_budget_are_never_refused(program: Program, database_url: str) -> None:
    async with Simulator(SimulatorSettings(account_rate_limits=("600/minute",))) as platform:
        configured(program, platform, database_url)
        await enqueue(database_url, 120)
        workers = [await program.start("worker", "--drain") for _ in range(WORKERS)]
        ends = await asyncio.gather(*(worker.ended(timeout=90) for worker in workers))
        assert [end.code for end in ends] == [0] * WORKERS
        assert await most_claimed_within_six_seconds(database_url) < 90  # 64 by the arithmetic; a budget for each makes all 120
        report = platform.report()["api"]
    assert report["by_status"] == {"success": 120}
    assert len(report["by_session"]) == 120
    assert report["rate_limited"] == 0


async def test_the_longer_window_ends_the_calls_of_all_processes(program: Program, database_url: str) -> None:
    async with Simulator(SimulatorSettings(account_rate_limits=("1200/minute", "60/hour"))) as platform:
        configured(program, platform, database_url)
        await enqueue(database_url, 120)
        workers = [await program.start("worker", "--drain") for _ in range(WORKERS)]
        await platform.wait_for(lambda report: report["api"]["calls"] >= 60, timeout=60)
        for worker in workers:
            await worker.logged("worker_started")
        with pytest.raises(TimeoutError):  # while everybody waits for the hour
            await platform.wait_for(lambda report: report["api"]["calls"] > 60, timeout=3)
        assert all(worker.process.returncode is None for worker in workers)
        assert platform.report()["api"]["by_status"] == {"success": 60}
