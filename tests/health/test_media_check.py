"""The way to a recording's first bytes, and whatever can stand in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.cli.serving import bot_access
from archiver.config import NetworkSettings
from archiver.health.bot_checks import check_listing
from archiver.health.findings import Finding
from archiver.health.media_check import PATIENCE, check_media
from tests.kore.conftest import http_answer, raw_server
from tests.runtime.network.conftest import Authority, forward_proxy
from tests.worker.conftest import WorkerHarness

HOUR = timedelta(hours=1)
NETWORK = NetworkSettings()


def call(session_id: str, age: timedelta = HOUR, seconds: float | None = 60, **fields: Any) -> dict[str, Any]:
    start = datetime.now(UTC) - age
    end = None if seconds is None else (start + timedelta(seconds=seconds)).isoformat()
    return {"session_id": session_id, "started_at": start.isoformat(), "ended_at": end, **fields}


async def media_finding(
    harness: WorkerHarness, *calls: dict[str, Any], network: NetworkSettings = NETWORK, patience: float = PATIENCE, **bot: Any
) -> Finding:
    if calls:
        harness.simulator.set_history({"calls": list(calls)})
    settings = harness.settings(bot=bot).model_copy(update={"network": network})
    async with bot_access(settings, harness.database) as bots:
        _, source = await check_listing(bots["bot"], budget=True)
        found = await check_media(bots["bot"], source, budget=True, patience=patience)
    assert found.check == "bot bot: media"
    assert bool(found.hint) == (found.verdict != "ok")
    return found


def serve(harness: WorkerHarness, session_id: str = "s-1", **recording: Any) -> None:
    harness.simulator.script({"session_id": session_id, "recordings": [recording]})


@pytest.mark.parametrize("account", [True, False])
async def test_the_first_kilobyte_of_a_listed_call_is_fetched_and_no_more(harness: WorkerHarness, account: bool) -> None:
    of_account: dict[str, Any] = {"account_id": harness.simulator.settings.account_id, "account_rate_limits": ["60000/minute"]}
    found = await media_finding(harness, call("s-1", recorded_seconds=7200), **(of_account if account else {}))
    assert found.verdict == "ok"
    assert found.message == "127.0.0.1 sent the first 1,024 bytes of a recording (audio/wav)"
    report = harness.simulator.report()
    assert report["api"]["calls"] == 1
    assert report["media"]["requests"] == 1
    assert report["media"]["complete"] == 0, "the connection was closed then"
    assert report["media"]["leaked_auth"] == 0
    assert await harness.rows("SELECT FROM archive_queue") == []
    assert not harness.root.exists()


async def test_every_call_is_drawn_from_the_budget(harness: WorkerHarness) -> None:
    await media_finding(harness, call("s-1"), rate_limits=["60/minute", "1800/hour"])
    assert len(await harness.rows("SELECT FROM archive_calls")) == 3, "a listing, that of the last day, and a session"


async def test_what_has_no_recording_is_not_asked_for_and_settled_calls_come_first(harness: WorkerHarness) -> None:
    await media_finding(
        harness,
        call("chat", channel="web"),
        call("running", seconds=None),
        call("just-ended", timedelta(minutes=2)),
        call("older", 5 * HOUR),
        call("newest", HOUR),
        call("old", 3 * HOUR),
    )
    assert harness.simulator.report()["api"]["by_session"] == {"newest": 1}


async def test_at_most_three_sessions_are_asked_and_that_none_has_a_recording_is_said(harness: WorkerHarness) -> None:
    found = await media_finding(harness, *(call(f"s-{number}", number * HOUR, recording="unavailable") for number in range(1, 6)))
    assert found.verdict == "warning"
    assert "3 media_unavailable" in found.message
    assert harness.simulator.report()["api"]["by_session"] == {"s-1": 1, "s-2": 1, "s-3": 1}


async def test_the_days_before_are_looked_at_where_the_last_one_has_no_call(harness: WorkerHarness) -> None:
    assert (await media_finding(harness, call("s-1", timedelta(days=3)))).verdict == "ok"


async def test_without_a_call_there_is_nothing_to_try_which_is_no_failure(harness: WorkerHarness) -> None:
    found = await media_finding(harness, call("s-1", timedelta(days=8)))
    assert found.verdict == "warning"
    assert found.message.startswith("nothing to try: no call that ended within the last 7 days")


async def test_without_a_listing_there_is_nothing_to_try(harness: WorkerHarness) -> None:
    harness.simulator.alter({"scopes": ["SmartAssist Recordings"]})
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "warning"
    assert "without a listing" in found.message


async def test_version_1_needs_no_media_host(harness: WorkerHarness) -> None:
    found = await media_finding(harness, call("s-1"), api="v1")
    assert found.verdict == "ok"
    assert "version 1" in found.message


async def test_no_route_to_the_media_host_names_it_and_what_to_open(harness: WorkerHarness) -> None:
    serve(harness, url="http://127.0.0.1:1/f.wav?s=SIGNATURE")
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "127.0.0.1:1" in found.message
    assert "open the way from this machine to 127.0.0.1:1 in the firewall" in found.hint
    assert "network.proxy" in found.hint
    assert "SIGNATURE" not in str(found)


async def test_no_route_behind_a_redirect_names_the_host_that_it_leads_to(harness: WorkerHarness) -> None:
    serve(harness, faults=[{"kind": "redirect", "to": "http://127.0.0.1:1/f.wav"}])
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "127.0.0.1:1 in the firewall" in found.hint


async def test_an_inner_media_host_names_itself_and_the_key(harness: WorkerHarness) -> None:
    found = await media_finding(harness, call("s-1"), media_hosts=["*.kore.ai"])
    assert found.verdict == "failure"
    assert "127.0.0.1" in found.message
    assert "not a public address" in found.message
    assert '"127.0.0.1" itself into bots.bot.media_hosts' in found.hint
    assert harness.simulator.report()["media"]["requests"] == 0


async def test_a_media_host_outside_the_list_names_itself_and_the_key(harness: WorkerHarness) -> None:
    serve(harness, url="https://recordings.example.com/f.wav")
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "recordings.example.com" in found.message
    assert "bots.bot.media_hosts" in found.hint


async def test_a_media_host_of_a_private_authority_names_the_key(harness: WorkerHarness, authority: Authority) -> None:
    async with raw_server(lambda _: http_answer(b"fLaC\x00\x00\x00\x22" + bytes(5000)), tls=authority.server) as media:
        serve(harness, url=f"{media.url}/f.flac")
        found = await media_finding(harness, call("s-1"))
        assert found.verdict == "failure"
        assert media.url.removeprefix("https://") in found.message
        assert "network.ca_bundle" in found.hint
        trusting = NetworkSettings.model_validate({"ca_bundle": str(authority.file)})
        found = await media_finding(harness, call("s-1"), network=trusting)
    assert (found.verdict, "audio/flac" in found.message) == ("ok", True)


async def test_a_proxy_that_refuses_the_media_host_names_both(harness: WorkerHarness) -> None:
    serve(harness, url="https://media.test/f.wav")
    async with forward_proxy() as proxy:
        by = NetworkSettings.model_validate({"proxy": proxy.url})
        found = await media_finding(harness, call("s-1"), network=by, media_hosts=["*.test"])
    assert found.verdict == "failure"
    assert proxy.url in found.message
    assert "allow media.test:443 in the proxy" in found.hint


@pytest.mark.parametrize("fault", [{"kind": "page"}, {"kind": "json"}, {"kind": "empty"}])
async def test_a_page_in_a_recording_s_place_is_a_failure(harness: WorkerHarness, fault: dict[str, Any]) -> None:
    serve(harness, faults=[fault | {"times": None}])
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "firewall or proxy may answer" in found.hint


async def test_a_refused_url_of_one_session_says_nothing_of_the_host(harness: WorkerHarness) -> None:
    serve(harness, faults=[{"kind": "status", "http_status": 403, "times": None}])
    assert (await media_finding(harness, call("s-1"), call("s-2", 2 * HOUR))).verdict == "ok"
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "HTTP 403" in found.message


async def test_a_host_in_trouble_is_reached_all_the_same(harness: WorkerHarness) -> None:
    serve(harness, faults=[{"kind": "status", "http_status": 503, "times": None}])
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "warning"
    assert "HTTP 503" in found.message


async def test_a_connection_that_breaks_within_the_first_kilobyte_is_a_failure(harness: WorkerHarness) -> None:
    serve(harness, faults=[{"kind": "truncate", "at": 100, "times": None}])
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "broke after 100 bytes" in found.message


async def test_a_host_that_drips_is_named_as_too_slow(harness: WorkerHarness) -> None:
    serve(harness, faults=[{"kind": "slow", "bytes_per_second": 20, "times": None}])
    found = await media_finding(harness, call("s-1"), patience=2)
    assert found.verdict == "failure"
    assert "127.0.0.1 is too slow" in found.message
    assert "127.0.0.1" in found.hint


@pytest.mark.parametrize("inner", ["169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
async def test_nobody_is_told_to_allow_where_a_machine_s_credentials_lie(harness: WorkerHarness, inner: str) -> None:
    serve(harness, url=f"https://{inner}/f.wav")
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "media_hosts" not in found.hint
    assert "do not allow it" in found.hint
    assert "support" in found.hint


@pytest.mark.parametrize("inner", ["169.254.169.254", "10.0.0.7"])
async def test_nobody_is_told_to_allow_an_inner_address_behind_a_redirect(harness: WorkerHarness, inner: str) -> None:
    serve(harness, faults=[{"kind": "redirect", "to": f"http://{inner}/latest/meta-data/"}])
    found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert inner in found.message
    assert "media_hosts" not in found.hint
    assert "support" in found.hint


async def test_a_host_that_speaks_no_http_is_not_blamed_on_the_firewall_s_rules(harness: WorkerHarness) -> None:
    async with raw_server(lambda _: b"220 mail.example ESMTP\r\n") as media:
        serve(harness, url=f"{media.url}/f.wav")
        found = await media_finding(harness, call("s-1"))
    assert found.verdict == "failure"
    assert "open the way" not in found.hint
    assert "speaks no HTTP" in found.hint
