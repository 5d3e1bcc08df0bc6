"""Workers share the budget of a bot, and of an account's bots: the platform counts, and never has to refuse. Timings at real
length are in benchmarks/fleet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.cli.serving import composed_worker
from archiver.config import Settings
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.sessions import Queue
from archiver.simulator.platform import Simulator, SimulatorSettings
from archiver.worker.claiming import Drained
from tests.conftest import settings_data
from tests.system.conftest import Program

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


async def drained(settings: Settings) -> Drained:
    """A worker of its own: nothing of it is shared with the others but the database."""
    async with Database(settings.database.url.get_secret_value(), pool_size=6) as database:
        queue = Queue(database, settings.retry)
        async with composed_worker(settings, database, queue, Tally()) as worker:
            return await worker.run(drain=True)


async def test_bots_of_one_account_are_never_refused_and_waste_nothing(database_url: str, tmp_path: Path) -> None:
    """Ten calls a second for all; with as many for each of the three, a second would see more than it may."""
    sessions, ideal = 150, 15.0
    async with Simulator(SimulatorSettings(account_rate_limits=("600/minute", "20/second"))) as platform:
        platform.script({"session_id": "*", "recordings": [{"audio": {"seconds": 0.1}}]})
        data: dict[str, Any] = settings_data(platform, database_url, tmp_path / "store")
        (bot,) = data["bots"]
        del bot["rate_limits"]
        bot |= {"account_id": platform.settings.account_id}
        data["bots"] = [bot | {"name": name, "bot_id": f"st-{name}"} for name in ("bot", "two", "three")]
        for each in data["bots"]:
            platform.add_bot(each["bot_id"], each["client_id"], each["client_secret"])
        data["bots"][1]["account_rate_limits"] = ["600/minute"]
        connection = await asyncpg.connect(database_url)
        try:
            query = "INSERT INTO archive_queue (bot, session_id) SELECT $1, $1 || n FROM generate_series(1, $2::integer) n"
            for each in data["bots"]:
                await connection.execute(query, each["name"], sessions // 3)
            ends = await asyncio.gather(*(drained(Settings.model_validate(data)) for _ in range(4)))
            assert [end.complete for end in ends] == [True] * 4
            claimed = "archive_queue q JOIN archive_history e ON e.queue_id = q.id AND e.event = 'claimed'"
            claims = await connection.fetch(f"SELECT q.bot, e.at FROM {claimed} ORDER BY e.at")
            ended = await connection.fetchval("SELECT max(finished_at) FROM archive_queue")
        finally:
            await connection.close()
        report = platform.report()["api"]
    assert report["rate_limited"] == 0
    assert report["by_status"] == {"success": sessions}
    assert (ended - claims[0]["at"]).total_seconds() <= 1.05 * ideal
    shares = Counter(claim["bot"] for claim in claims[: sessions // 2])
    assert all(20 <= share <= 30 for share in shares.values()), shares


async def most_claimed_within_six_seconds(database_url: str) -> int:
    """A claim draws a call; six seconds are a tenth of the window."""
    connection = await asyncpg.connect(database_url)
    try:
        found = await connection.fetchval(
            "SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY at RANGE BETWEEN '6 s' PRECEDING AND CURRENT ROW) AS n "
            "FROM archive_history WHERE event = 'claimed') c"
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
