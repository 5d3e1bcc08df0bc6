"""An outage as those on call see it: a real worker, a real Prometheus, the alerts that ship."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from archiver.simulator.platform import Simulator
from tests.programs import installed
from tests.prometheus import prometheus
from tests.servers import free_ports
from tests.system.conftest import Program, eventually
from tests.worker.conftest import TcpProxy

REJECTED, NOT_READY = ("ArchiverCredentialsRejected", "bot"), ("ArchiverNotReady", "database")


async def check_metrics(url: str) -> None:
    """Names, types and units are as Prometheus wants them."""
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        page = await response.read()
    assert b"archiver_figures_timestamp_seconds" in page
    promtool = await asyncio.create_subprocess_exec(
        installed("promtool", "prometheus"), "check", "metrics",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await promtool.communicate(page)
    assert (promtool.returncode, said) == (0, b""), said.decode()


async def test_alerts_fire_in_an_outage_and_clear_after_it(
    archiver: Program, data: dict[str, Any], database_url: str, simulator: Simulator, tmp_path: Path
) -> None:
    """First the platform refuses the credentials, then the database cannot be reached; both come back."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    (tmp_path / "prometheus").mkdir()
    async with TcpProxy(database_url) as line, prometheus(tmp_path / "prometheus", listen) as watching:
        direct = archiver.configure(data, "direct.toml")
        archiver.configure({**data, "database": {"url": line.url}, "metrics": {"listen": listen}})
        worker = await archiver.start("worker")
        await worker.logged("metrics_server_started")

        async def quiet() -> bool:
            return not await watching.firing() & {REJECTED, NOT_READY, ("ArchiverDown", "")}

        async def rejected() -> bool:
            return REJECTED in await watching.firing()

        async def not_ready() -> bool:
            return NOT_READY in await watching.firing()

        await eventually(quiet, 60, every=0.3)
        await check_metrics(f"http://{listen}/metrics")
        simulator.reject_credentials = True
        simulator.script({"session_id": "s1"})
        assert (await archiver("enqueue", "s1")).code == 0
        await eventually(rejected, 60, every=0.3)
        simulator.reject_credentials = False
        archiver.config = direct
        assert (await archiver("resume", "--bot", "bot")).code == 0
        line.hang()
        await eventually(not_ready, 90, every=0.3)
        line.flow()
        await eventually(quiet, 90, every=0.3)
        await worker.logged("session_archived", timeout=60)
