"""SIGHUP of a worker, as service managers send it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, Running, eventually


@pytest.fixture(autouse=True)
def hangup_means_something() -> Iterator[None]:
    """What is ignored here is ignored by what is started here: these tests may run under nohup themselves."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def _caught(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))


async def catches_hangups(running: Running) -> None:
    """As soon as the command has begun to look after signals, long before it works."""

    async def look() -> bool:
        return bool(_caught(running.process.pid) & 1 << (signal.SIGHUP - 1))

    await eventually(look)


async def scraped(port: int) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


async def test_hanging_up_at_any_time_ends_no_worker(archiver: Program, data: dict[str, Any], simulator: Simulator) -> None:
    data["metrics"] = {"listen": "127.0.0.1:0"}
    archiver.configure(data)
    running = await archiver.start("worker")
    await catches_hangups(running)
    running.send(signal.SIGHUP)
    await running.logged("worker_started")
    for _ in range(10):
        running.send(signal.SIGHUP)
    await running.logged("config_reloaded")
    port = (await running.logged("metrics_server_started"))["port"]
    assert "archiver_config_last_reload_successful 1.0" in await scraped(port)
    archiver.configure(data).write_text("[worker")
    running.send(signal.SIGHUP)
    failed = await running.logged("config_reload_failed")
    assert (failed["level"], "not valid TOML" in failed["message"]) == ("error", True)
    assert failed["hint"]
    served = await scraped(port)
    assert "archiver_config_last_reload_successful 0.0" in served
    assert "archiver_config_last_reload_success_timestamp_seconds" in served
    simulator.script(
        {"session_id": "one", "recordings": [{"audio": {"bytes": 4000}, "faults": [{"kind": "slow", "bytes_per_second": 4000}]}]}
    )
    archiver.configure(data | {"bots": [*data["bots"], data["bots"][0] | {"name": "other"}]})
    reloaded = len([line for line in running.events if line["event"] == "config_reloaded"])
    running.send(signal.SIGHUP)
    assert (await running.logged("config_reloaded", times=reloaded + 1))["changed"] == ["bots.other"]
    await archiver("enqueue", "--bot", "other", "one")
    await simulator.wait_for(lambda report: report["media"]["requests"] >= 1)
    running.send(signal.SIGTERM)
    await running.logged("worker_stopping")
    running.send(signal.SIGHUP)
    ended = await running.ended()
    assert ended.code == 143
    (archived,) = [line for line in running.events if line["event"] == "session_archived"]
    assert archived["bot"] == "other"
    assert data["bots"][0]["client_secret"] not in ended.stderr + served


async def test_all_processes_read_it_again_each_with_its_share(
    archiver: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    data["worker"]["concurrency"] = 2
    archiver.configure(data)
    names = [f"call-{number}" for number in range(5)]
    for name in names:
        simulator.script({"session_id": name, "recordings": [{"faults": [{"kind": "stall", "at": 1000}]}]})
    running = await archiver.start("worker", "--processes", "2")
    await running.logged("worker_started", times=2)
    data["worker"]["concurrency"] = 5
    data["transfer"] = {"max_bandwidth": "10MiB"}
    data["bots"].append(data["bots"][0] | {"name": "other"})
    archiver.configure(data)
    running.send(signal.SIGHUP)
    await running.logged("config_reloaded", times=2)
    told = {line["process"]: line["changed"] for line in running.events if line["event"] == "config_reloaded"}
    assert set(told) == {1, 2}
    assert told[1] == told[2] == ["worker.concurrency", "transfer.max_bandwidth", "bots.other"]
    await archiver("enqueue", "--bot", "other", *names)
    await simulator.wait_for(lambda report: report["media"]["requests"] >= 5)
    workers = (await archiver("workers", "--json")).document["workers"]
    assert sorted(len(worker["sessions"]) for worker in workers) == [2, 3]
    data["worker"]["concurrency"] = 1
    archiver.configure(data)
    running.send(signal.SIGHUP)
    failed = await running.logged("config_reload_failed")
    assert "--processes 2: worker.concurrency = 1 cannot be shared out" in failed["message"]
    running.send(signal.SIGTERM)
    running.send(signal.SIGTERM)
    assert (await asyncio.wait_for(running.ended(), 30)).code == 143
