"""The simulator as a whole: its life, its report, its control endpoints."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import aiohttp
import pytest
from yarl import URL

from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.simulator.conftest import SESSION, Client


async def test_leaving_drops_hung_stalled_slow_and_idle_connections_at_once(http: aiohttp.ClientSession) -> None:
    async with Simulator(SimulatorSettings()) as sim:
        client = Client(sim, http)
        sim.script({"session_id": "hung", "answers": [{"fault": "hang"}]})
        faults = [{"kind": "slow", "bytes_per_second": 100}, {"kind": "stall", "at": 10}]
        sim.script({"session_id": SESSION, "recordings": [{"faults": [fault]} for fault in faults]})
        slow, stall = await client.urls()
        tasks = [asyncio.create_task(client.fetch(url)) for url in (slow, stall)]
        tasks.append(asyncio.create_task(client.ask("hung")))
        await sim.wait_for(lambda report: report["api"]["calls"] == 2 and report["media"]["bytes"] > 10)
        began = time.monotonic()
    assert time.monotonic() - began < 0.5
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes), outcomes
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.ask()


async def test_leaving_does_not_wait_for_a_client_that_reads_nothing(http: aiohttp.ClientSession) -> None:
    async with Simulator(SimulatorSettings()) as sim:
        sim.script({"session_id": SESSION, "recordings": [{"audio": {"bytes": 200_000_000}}]})
        (url,) = await Client(sim, http).urls()
        async with http.get(URL(url, encoded=True)) as response:
            assert response.content_length == 200_000_000
            began = time.monotonic()
            await sim.__aexit__(None, None, None)
            assert time.monotonic() - began < 0.5


async def test_a_client_that_goes_ends_its_hung_request(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "hang"}]})
    before = asyncio.all_tasks()
    ask = asyncio.create_task(client.ask())
    await client.sim.wait_for(lambda report: report["api"]["calls"] == 1)
    left = asyncio.all_tasks() - before - {ask}
    ask.cancel()
    await asyncio.wait(left, timeout=2)
    assert all(task.done() for task in left)


async def test_a_port_that_is_taken_leaves_nothing_open() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        sim = Simulator(SimulatorSettings(api_port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="address already in use"):
            await sim.__aenter__()
    port = URL(sim.media_url).port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_ports_can_be_chosen_and_the_name_in_the_urls(http: aiohttp.ClientSession) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Simulator(SimulatorSettings(api_port=port, public_host="localhost")) as sim:
        assert sim.api_url == f"http://localhost:{port}"
        assert sim.media_url.startswith("http://localhost:")
        assert (await Client(sim, http).ask()).status == 200


async def test_credentials_are_made_up_unless_given(sim: Simulator) -> None:
    assert sim.bot_id.startswith("st-")
    assert sim.client_id.startswith("cs-")
    assert len(sim.client_secret) >= 64
    given = Simulator(SimulatorSettings(bot_id="st-1", client_id="cs-1", client_secret="s"))
    assert (given.bot_id, given.client_id, given.client_secret) == ("st-1", "cs-1", "s")


async def test_settings_belong_to_one_simulator() -> None:
    settings = SimulatorSettings()
    one, two = Simulator(settings), Simulator(settings)
    one.settings.url_lifetime = 5
    assert (two.settings.url_lifetime, settings.url_lifetime) == (60, 60)


async def test_the_report_counts_everything_and_is_json(client: Client) -> None:
    client.sim.script({"session_id": SESSION})
    (url,) = await client.urls()
    await client.fetch(url)
    await client.ask("unknown")
    await client.ask(headers={})
    report = client.sim.report()
    assert json.loads(json.dumps(report)) == report
    assert report["api"] == {
        "calls": 3,
        "by_status": {"success": 1, "media_unavailable": 1, "unauthorized": 1},
        "by_session": {SESSION: 1, "unknown": 1},
        "user_ids": {},
        "unauthorized": 1,
        "last_refusal": "the auth header is missing",
        "rate_limited": 0,
        "unknown_sessions": 1,
        "authorization_header_seen": 0,
        "max_in_window": {"minute": 2, "hour": 2},
    }
    assert report["media"]["bytes"] == 32_044


async def test_wait_for_returns_the_report_that_fits_or_times_out_with_the_last(client: Client) -> None:
    waiting = asyncio.create_task(client.sim.wait_for(lambda report: report["api"]["calls"] >= 2))
    await client.ask()
    assert not waiting.done()
    await client.ask()
    assert (await waiting)["api"]["calls"] == 2
    with pytest.raises(TimeoutError, match="'calls': 2"):
        await client.sim.wait_for(lambda report: report["api"]["calls"] > 2, timeout=0.01)


async def test_sessions_can_be_scripted_over_http(client: Client) -> None:
    one = {"session_id": "one", "answers": [{"status": "failed"}]}
    assert (await client.control("POST", "sessions", one)).json == {"sessions": 1}
    assert (await client.control("POST", "sessions", [one | {"session_id": "two"}, one])).json == {"sessions": 2}
    assert (await client.ask("two")).json == {"status": "failed"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"session_id": ""}, "session_id: String should have at least 1"),
        ([{"session_id": "good"}, {"session_id": "bad", "x": 1}], "'bad': x: Extra inputs"),
        (["good"], "JSON object, not str"),
        (None, "not JSON"),
    ],
)
async def test_a_malformed_script_over_http_is_refused_and_nothing_added(client: Client, data: Any, says: str) -> None:
    answer = await client.control("POST", "sessions", data)
    assert answer.status == 400
    assert says in answer.message
    assert (await client.ask("good")).json == {"status": "media_unavailable"}


async def test_the_report_can_be_read_over_http(client: Client) -> None:
    await client.ask("unknown")
    answer = await client.control("GET", "report")
    assert answer.json == client.sim.report()
    assert answer.json["api"]["calls"] == 1


async def test_settings_can_be_altered_over_http(client: Client) -> None:
    answer = await client.control("POST", "settings", {"reject_credentials": True, "url_lifetime": 2, "rate_limits": []})
    assert answer.status == 200
    assert answer.json["reject_credentials"] is True
    assert (answer.json["url_lifetime"], answer.json["rate_limits"], answer.json["enforce_jti"]) == (2, [], False)
    assert (client.sim.settings.url_lifetime, client.sim.settings.rate_limits) == (2, ())
    assert (await client.ask()).status == 401


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"url_lifetime": 3, "rate_limits": ["60"]}, "rate_limits: Value error, rate limit '60' is not"),
        ({"url_lifetime": 3, "bot_id": "st-x"}, "bot_id cannot be changed"),
        ({"url_lifetime": 3, "reject_credentials": 1}, "reject_credentials"),
        ({"url_lifetime": 3, "algorithms": ["RS256"]}, "public_key_pem"),
        ([], "JSON object"),
    ],
)
async def test_a_wrong_setting_is_refused_and_none_altered(client: Client, data: Any, says: str) -> None:
    answer = await client.control("POST", "settings", data)
    assert answer.status == 400
    assert says in answer.message
    assert client.sim.settings.url_lifetime == 60


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"Origin": "http://page.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Host": "localhost"}, True),
        ({"Host": "rebound.example:8770"}, True),
        ({"Host": "rebound.example."}, True),
        ({"Host": "127.0.0.1.rebound.example"}, True),
        ({"Host": "]["}, True),
        ({"Host": "127.0.0.1:8770", "Sec-Fetch-Site": "none"}, False),
        ({"Host": "[::1]:8770"}, False),
        ({"Host": "localhost"}, False),
        ({"Host": "simulator:8770"}, False),
        ({"Host": "host.docker.internal"}, False),
        ({"Host": "simulator.calls.svc:8770"}, False),
        ({"Host": "sim.example"}, False),
    ],
)
async def test_a_web_page_controls_nothing(http: aiohttp.ClientSession, headers: dict[str, str], refused: bool) -> None:
    """Nor does one whose name leads to this machine."""
    async with Simulator(SimulatorSettings(public_host="sim.example")) as sim:
        url = f"http://127.0.0.1:{URL(sim.api_url).port}/_simulator"
        for path, body in (("sessions", [{"session_id": "s"}]), ("settings", {"reject_credentials": True})):
            async with http.post(f"{url}/{path}", json=body, headers=headers) as answer:
                assert answer.status == (403 if refused else 200), await answer.text()
        async with http.get(f"{url}/report", headers=headers) as answer:
            assert answer.status == (403 if refused else 200)
            assert refused == ("no orders" in await answer.text())
        assert sim.reject_credentials != refused


async def test_control_can_be_left_out(http: aiohttp.ClientSession) -> None:
    async with Simulator(SimulatorSettings(control=False)) as sim:
        assert (await Client(sim, http).control("GET", "report")).status == 404


async def test_any_other_path_is_not_found(client: Client) -> None:
    async with client.http.get(client.sim.api_url + "/api/public/bot/x/recording") as response:
        assert response.status == 404
        assert (await response.json())["errors"]
