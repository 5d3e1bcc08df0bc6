"""Whether a process is ready: each reason provoked, asked for over HTTP, and never waited for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from archiver.cli.monitor import Monitor, monitored
from archiver.cli.processes import Processes
from archiver.cli.serving import composed_worker
from archiver.config import Settings
from archiver.errors import StoreUnavailable
from archiver.observe import exposition
from archiver.observe.readiness import Readiness
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.postgres.migrations import migrations
from archiver.queue.figures import FleetFigures
from archiver.queue.sessions import Queue
from archiver.runtime.buffers import Buffers
from archiver.stores import MARKER
from archiver.stores.open import open_store
from archiver.worker import readiness as module
from archiver.worker import store_gate
from archiver.worker.loop import Worker
from archiver.worker.readiness import Watch
from archiver.worker.sealing import Sealing
from tests.conftest import settings_data
from tests.evidence.sealing import sealed_archive
from tests.worker.conftest import TcpProxy, WorkerHarness

pytestmark = pytest.mark.once


class Asked:
    """A process, as an orchestrator asks it."""

    def __init__(self, monitor: Monitor, http: aiohttp.ClientSession) -> None:
        self.monitor = monitor
        self.worker: Worker
        self._http = http

    async def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        async with self._http.request(method, path) as response:
            return response.status, await response.text()

    async def reasons(self) -> dict[str, dict[str, str]]:
        async with self._http.get("/readyz") as response:
            document = await response.json()
            assert response.status == (200 if document["ready"] else 503)
            assert document["ready"] is not bool(document["reasons"])
        for each in document["reasons"]:
            assert datetime.fromisoformat(each["since"]).tzinfo is not None
        assert await self.get("/livez") == (200, "alive\n")
        return {each["reason"]: each for each in document["reasons"]}

    async def until(self, right: Callable[[set[str]], bool]) -> dict[str, dict[str, str]]:
        async with asyncio.timeout(20):
            while not right(set(found := await self.reasons())):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nobody is told
        return found


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those at which metrics were served."""
    found: list[int] = []
    original = exposition.log.info

    def info(event: str, **facts: Any) -> None:
        if event == "metrics_server_started":
            found.append(facts["port"])
        original(event, **facts)

    monkeypatch.setattr(exposition.log, "info", info, raising=False)
    return found


@pytest.fixture
def settings(harness: WorkerHarness) -> Settings:
    data = settings_data(harness.simulator, harness.database_url, harness.root)
    return Settings.model_validate(data | {"metrics": {"listen": "127.0.0.1:0"}})


@asynccontextmanager
async def at_work(settings: Settings, ports: list[int], database_url: str) -> AsyncIterator[Asked]:
    """A worker, as the command has it."""
    async with monitored(settings, Processes(settings, 1), resident=True) as monitor:  # noqa: SIM117  # the port is known then
        async with aiohttp.ClientSession(f"http://127.0.0.1:{ports[-1]}") as http:  # the port is known by now
            asked = Asked(monitor, http)
            assert set(await asked.reasons()) == {"starting"}, "before the database is reached"
            async with Database(database_url, pool_size=8) as database, monitor.reading(database):
                queue = Queue(database, settings.retry)
                async with composed_worker(settings, database, queue, Tally(), monitor=monitor) as worker:
                    asked.worker = worker
                    run = asyncio.create_task(worker.run())
                    try:
                        await asked.until(lambda reasons: not reasons)
                        yield asked
                    finally:
                        worker.hurry()
                        await asyncio.wait([run])


async def test_a_worker_is_ready_until_it_is_told_to_stop(settings: Settings, ports: list[int], harness: WorkerHarness) -> None:
    async with at_work(settings, ports, harness.database_url) as asked:
        assert await asked.get("/readyz", "HEAD") == (200, "")
        assert await asked.get("/livez", "HEAD") == (200, "")
        assert (await asked.get("/elsewhere"))[0] == 404
        _, text = await asked.get("/metrics")
        assert "\narchiver_ready 1.0\n" in text
        assert '\narchiver_not_ready{reason="store"} 0.0\n' in text
        assert "\narchiver_store_free_bytes " in text
        asked.worker.stop()
        assert set(await asked.reasons()) == {"stopping"}


async def test_a_database_that_does_not_answer_is_a_reason_and_nobody_waits_for_it(
    settings: Settings, ports: list[int], proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DATABASE_SECONDS", 0.1)
    worker = settings.worker.model_copy(update={"lease_seconds": 1})
    async with at_work(settings.model_copy(update={"worker": worker}), ports, proxy.url) as asked:
        proxy.hang()
        found = await asked.until(lambda reasons: {"database", "lease"} <= reasons)
        assert "not answered" in found["database"]["message"]
        again = await asked.reasons()
        assert again["database"]["since"] == found["database"]["since"]
        _, text = await asked.get("/metrics")
        assert '\narchiver_not_ready{reason="database"} 1.0\n' in text
        assert "\narchiver_worker_leases_lost_total 1.0\n" in text
        proxy.flow()
        await asked.until(lambda reasons: not reasons)


async def test_a_store_that_went_away_is_a_reason(
    settings: Settings, ports: list[int], harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_SECONDS", 0.05)
    async with at_work(settings, ports, harness.database_url) as asked:
        aside = harness.root.rename(harness.root.with_name("aside"))
        found = await asked.until(lambda reasons: "store" in reasons)
        assert "No such file or directory" in found["store"]["message"]
        aside.rename(harness.root)
        await asked.until(lambda reasons: not reasons)
        asked.worker._gate.close(StoreUnavailable("the disk is full"))
        assert (await asked.reasons())["store"]["message"] == "the disk is full"


async def test_a_store_that_is_back_is_no_reason_though_nothing_is_there_to_be_stored(
    settings: Settings, ports: list[int], harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_gate, "PROVEN_SECONDS", 0.05, raising=False)
    async with at_work(settings, ports, harness.database_url) as asked:
        asked.worker._gate.close(StoreUnavailable("the disk is full"))
        assert set(await asked.reasons()) == {"store"}
        await asked.until(lambda reasons: not reasons)
        asked.worker._gate.close(StoreUnavailable("the disk is full"))
        assert set(await asked.reasons()) == {"store"}


async def test_a_disk_that_hangs_is_a_reason_and_keeps_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "STORE_PATIENCE", 0.02)
    watch, asked = Watch(Readiness(), ["bot"]), 0
    reader, writer = os.pipe()

    def hang(_: object) -> None:
        nonlocal asked
        asked += 1
        os.read(reader, 1)

    monkeypatch.setattr(os, "statvfs", hang)
    looking = asyncio.create_task(watch.folder(tmp_path))
    async with asyncio.timeout(10):
        while "not answered" not in watch.store_trouble:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # nobody is told
    assert asked == 1
    looking.cancel()
    os.write(writer, b"x")
    os.close(writer)


async def test_a_bucket_or_folder_that_answers_is_none(harness: WorkerHarness) -> None:
    watch = Watch(Readiness(), ["bot"])
    settings = harness.settings()
    async with open_store(settings.storage, Buffers(2**24)) as store:
        watch.store_trouble = "it was away"
        await watch._ask_store(asyncio.ensure_future(store.size(MARKER)))
        assert not watch.store_trouble


@pytest.mark.parametrize(("min_program", "found"), [("1000.0", {"schema"}), ("0.2", set())])
async def test_tables_that_this_program_does_not_work_with_are_a_reason(
    database: Database, min_program: str, found: set[str]
) -> None:
    readiness = Readiness()
    readiness.clear("starting")
    watch = Watch(readiness, ["bot"])
    await watch.look_at_database(database)
    assert readiness.ready
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO archive_migrations (version, name, sha256, min_program) VALUES ($1, 'later', 'x', $2)",
            len(migrations()) + 1,
            min_program,
        )
    watch._schema_at = 0
    await watch.look_at_database(database)
    assert {each.reason for each in readiness.reasons} == found


async def test_a_budget_is_a_reason_when_no_bot_gets_on_for_minutes(harness: WorkerHarness) -> None:
    settings = harness.settings()
    (bot,) = settings.bots
    other = bot.model_copy(update={"name": "other", "bot_id": "st-other"})
    await harness.rows("INSERT INTO archive_bots (name) VALUES ('bot'), ('other')")

    async def judged(*bots: str) -> str:
        figures, readiness = FleetFigures(harness.database, [bot, other]), Readiness()
        await harness.rows("UPDATE archive_figures SET at = '-infinity'")
        await figures.look()
        watch = Watch(readiness, bots)
        watch.judge_budgets(figures.latest, figures.age)
        return next((each.message for each in readiness.reasons if each.reason == "budget"), "")

    blocked = """INSERT INTO archive_budgets (key, blocked_until) VALUES ($1, now() + $2)
                 ON CONFLICT (key) DO UPDATE SET blocked_until = excluded.blocked_until"""
    await harness.rows(blocked, bot.account_budget_key, timedelta(seconds=60))
    assert not await judged("bot"), "a moment's wait"
    await harness.rows(blocked, bot.account_budget_key, timedelta(hours=1))
    assert "bot: none for the next 3" in await judged("bot")
    assert not await judged("bot", "other"), "the other gets on"
    await harness.rows(blocked, other.account_budget_key, timedelta(hours=1))
    assert "other" in await judged("bot", "other")


async def test_short_blocks_one_after_another_are_a_reason_in_the_end(harness: WorkerHarness) -> None:
    settings = harness.settings()
    await harness.rows("INSERT INTO archive_bots (name) VALUES ('bot')")
    await harness.rows(
        "INSERT INTO archive_budgets (key, blocked_until) VALUES ($1, now() + interval '1 minute')",
        settings.bots[0].account_budget_key,
    )
    figures, readiness = FleetFigures(harness.database, settings.bots), Readiness()
    await figures.look()
    watch = Watch(readiness, ["bot"])
    watch.judge_budgets(figures.latest, figures.age)
    assert "budget" not in {each.reason for each in readiness.reasons}
    watch._spent_since["bot"] -= 121  # as if that were so long ago
    watch.judge_budgets(figures.latest, figures.age)
    assert "budget" in {each.reason for each in readiness.reasons}
    watch.judge_budgets(None, float("inf"))
    assert "budget" not in {each.reason for each in readiness.reasons}


async def test_what_cannot_be_sealed_is_a_reason(database_url: str, tmp_path: Path) -> None:
    async with sealed_archive(database_url, tmp_path) as archive:
        await archive.begin()
        sealing = Sealing(archive.sealer, archive.ledger, timedelta(0))
        await archive.end("s-1", files={"a.wav": b"one"})
        (archive.root / "evidence").write_text("where a folder has to be")
        running = asyncio.create_task(sealing.run())
        async with asyncio.timeout(20):
            while not sealing.trouble:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # nobody is told
        running.cancel()
        await asyncio.wait([running])
        (archive.root / "evidence").unlink()
        await sealing._look()
        assert not sealing.trouble
        await archive.end("s-2", files={"a.wav": b"one"})
        await archive.fetch("UPDATE archive_ledger_outbox SET at = now() - interval '61 minutes'")
        late = Sealing(archive.sealer, archive.ledger, timedelta(hours=2))
        await late._look()
        assert not late.trouble, "it is not its time"
        late._waiting_seconds = 4 * 3600 + 1
        assert "240 minutes" in late.trouble


def test_no_reason_tells_a_secret_or_more_than_fits() -> None:
    readiness = Readiness()
    readiness.set("store", "https://a.example/b?X-Amz-Signature=0123456789abcdef0123456789abcdef" + "x" * 5000)
    (_, store) = readiness.reasons
    assert "0123456789abcdef" not in store.message
    assert len(store.message) <= 500
