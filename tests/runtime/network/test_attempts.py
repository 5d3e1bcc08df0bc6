"""What a proxy does to a session, and what of it costs an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.config import NetworkSettings, Settings
from archiver.postgres.database import Database
from archiver.simulator.platform import Simulator
from tests.runtime.network.conftest import API, MEDIA, Authority, ForwardProxy, forward_proxy, front, listening
from tests.worker.conftest import WorkerHarness, session_id

pytestmark = pytest.mark.once


@dataclass(frozen=True)
class Behind:
    """A harness whose platform and media hosts only a proxy reaches."""

    harness: WorkerHarness
    proxy: ForwardProxy
    settings: Settings


@pytest.fixture
async def behind(
    simulator: Simulator, database_url: str, tmp_path: Path, database: Database, authority: Authority
) -> AsyncIterator[Behind]:
    harness = WorkerHarness(simulator, database_url, tmp_path / "store", database)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(forward_proxy())
        for name, url in ((API, simulator.api_url), (MEDIA, simulator.media_url)):
            port = await stack.enter_async_context(listening(front(url), authority.server))
            proxy.reaches[name] = ("127.0.0.1", port)
        simulator._media.origin = f"https://{MEDIA}"
        settings = harness.settings(bot={"host": f"https://{API}", "media_hosts": [MEDIA]})
        network = NetworkSettings.model_validate({"proxy": proxy.url, "ca_bundle": authority.file})
        yield Behind(harness, proxy, settings.model_copy(update={"network": network}))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy_credentials_rejected"),
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "proxy_refused"),
    ],
)
async def test_a_proxy_that_lets_nobody_out_for_a_while_costs_no_attempt(
    behind: Behind, monkeypatch: pytest.MonkeyPatch, answer: bytes, reason: str
) -> None:
    monkeypatch.setattr("archiver.outcome.PROXY_WAIT", timedelta(milliseconds=50))
    behind.proxy.answer = answer
    (one,) = await behind.harness.scripted(1)
    async with behind.harness.shift(behind.settings, drain=True) as shift:
        await behind.harness.eventually("SELECT FROM archive_sessions WHERE reason = $1", reason)
        behind.proxy.answer = b""
        ended = await shift.ended()
    assert ended.complete
    assert not await behind.harness.rows("SELECT * FROM archive_holds"), "nobody's credentials were refused by the platform"
    row = (await behind.harness.sessions())[one]
    assert (row["state"], row["failures"]) == ("archived", 0)
    await behind.harness.assert_accounted_for()


async def test_a_media_host_that_the_proxy_refuses_costs_nothing_the_first_time(behind: Behind) -> None:
    behind.harness.simulator.script({"session_id": session_id(2), "recordings": [{"url": "https://else.test/a.wav"}]})
    await behind.harness.scripted(1)
    await behind.harness.enqueue(session_id(2))
    bot = behind.settings.bots[0].model_copy(update={"media_hosts": ("*.test",)})
    ended = await asyncio.wait_for(behind.harness.drained(behind.settings.model_copy(update={"bots": (bot,)})), 60)
    assert ended.failed == 1
    rows = await behind.harness.sessions()
    assert rows[session_id(0)]["state"] == "archived"
    failed = rows[session_id(2)]
    assert (failed["state"], failed["reason"], failed["failures"]) == ("failed", "proxy_refused", 3)
    assert "else.test:443" in failed["detail"]["message"]
    assert "allow else.test:443" in failed["detail"]["hint"]
    assert (await behind.harness.events(session_id(2))).count("claimed") == 4
