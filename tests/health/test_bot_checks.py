"""The checks that ask the platform: each cause of a refusal has a line of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from archiver.cli.serving import bot_access
from archiver.config import NetworkSettings
from archiver.health.bot_checks import check_bot
from archiver.health.findings import Finding
from tests.runtime.network.conftest import Authority, front, listening
from tests.worker.conftest import WorkerHarness

NETWORK = NetworkSettings()


async def bot_findings(harness: WorkerHarness, network: NetworkSettings = NETWORK, /, **bot: Any) -> dict[str, Finding]:
    settings = harness.settings(bot=bot).model_copy(update={"network": network})
    async with bot_access(settings, harness.database) as bots:
        found = await check_bot(bots["bot"], budget=True)
    assert all(finding.hint for finding in found if finding.verdict != "ok")
    return {finding.check.partition(": ")[2]: finding for finding in found}


def failed(found: dict[str, Finding]) -> list[str]:
    return [check for check, finding in found.items() if finding.verdict == "failure"]


async def test_a_bot_that_is_well(harness: WorkerHarness) -> None:
    found = await bot_findings(harness)
    assert {check: finding.verdict for check, finding in found.items()} == {"token": "ok", "API": "ok", "clock": "ok"}
    assert harness.simulator.report()["api"]["calls"] == 1


WRONG_SECRET = "not-the-secret-of-this-app-0123456789"


async def test_a_wrong_secret_is_a_failure_of_its_own(harness: WorkerHarness) -> None:
    found = await bot_findings(harness, client_secret=WRONG_SECRET)
    assert failed(found) == ["client_secret"]
    assert "Invalid JWT token" in found["client_secret"].message
    assert "bots.bot.client_secret" in found["client_secret"].hint


async def test_a_wrong_secret_in_a_file_names_the_file_s_key(harness: WorkerHarness, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(WRONG_SECRET)
    found = await bot_findings(harness, client_secret="", client_secret_file=str(tmp_path / "secret"))
    assert failed(found) == ["client_secret_file"]


@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_bot_id_is_a_failure_of_its_own(harness: WorkerHarness, status: int) -> None:
    harness.simulator.alter({"unknown_bot_status": status})
    found = await bot_findings(harness, bot_id="st-nobody")
    assert failed(found) == ["bot_id"]
    assert "st-nobody" in found["bot_id"].message
    assert "bots.bot.bot_id" in found["bot_id"].hint


async def test_the_bot_of_another_app_is_a_wrong_bot_id(harness: WorkerHarness) -> None:
    harness.simulator.add_bot("st-two", "cs-two", "2" * 64)
    assert failed(await bot_findings(harness, bot_id="st-two")) == ["bot_id"]


async def test_a_wrong_client_id_is_told_from_a_wrong_bot_id(harness: WorkerHarness) -> None:
    found = await bot_findings(harness, client_id="cs-nobody")
    assert failed(found) == ["client_id"]
    hint = found["client_id"].hint
    assert hint.index("bots.bot.client_id") < hint.index("bots.bot.bot_id"), "a platform might look at the bot first"
    assert "bots.bot.host" in hint


@pytest.mark.parametrize("status", [401, 403])
async def test_an_unpublished_scope_is_a_failure_of_its_own(harness: WorkerHarness, status: int) -> None:
    harness.simulator.alter({"scopes": [], "scope_status": status})
    found = await bot_findings(harness)
    assert failed(found) == ["scope"]
    assert "SmartAssist Recordings" in found["scope"].hint
    assert "publish" in found["scope"].hint


async def test_a_refusal_of_everything_is_not_pinned_on_one_key(harness: WorkerHarness) -> None:
    harness.simulator.script({"session_id": "archiver-doctor-0", "answers": [{"http_status": 403, "body": "no"}]})
    found = await bot_findings(harness)
    assert failed(found) == ["API"]
    assert all(key in found["API"].hint for key in ("client_id", "client_secret", "bot_id", "scope"))


async def test_an_app_that_enforces_encrypted_tokens_is_told_apart(harness: WorkerHarness) -> None:
    harness.simulator.alter({"enforce_jwe": True})
    found = await bot_findings(harness)
    assert found["API"].verdict == "failure"
    assert "JWE" in found["API"].hint


async def test_an_api_host_of_a_private_authority_is_a_failure_that_names_the_key(
    harness: WorkerHarness, authority: Authority
) -> None:
    async with listening(front(harness.simulator.api_url), authority.server) as port:
        host = f"https://127.0.0.1:{port}"
        found = await bot_findings(harness, host=host)
        assert failed(found) == ["API"]
        assert host in found["API"].message
        assert "network.ca_bundle" in found["API"].hint
        trusting = NetworkSettings.model_validate({"ca_bundle": str(authority.file)})
        assert failed(await bot_findings(harness, trusting, host=host)) == []


async def test_a_spent_budget_is_not_blamed_on_the_network(harness: WorkerHarness) -> None:
    harness.simulator.alter({"account_rate_limits": ["1/minute"]})
    await bot_findings(harness)
    found = await bot_findings(harness)
    assert found["API"].verdict == "warning"
    assert "budget" in found["API"].hint


async def test_a_host_that_is_not_there_is_a_failure(harness: WorkerHarness) -> None:
    found = await bot_findings(harness, host="http://127.0.0.1:1")
    assert found["API"].verdict == "failure"
    assert "host" in found["API"].hint


@pytest.mark.parametrize(
    ("skew", "verdict"), [(0, "ok"), (60, "warning"), (-60, "warning"), (3600, "failure"), (-3600, "failure")]
)
async def test_a_clock_that_is_wrong_is_told(harness: WorkerHarness, skew: int, verdict: str) -> None:
    harness.simulator.alter({"clock_skew": skew})
    found = await bot_findings(harness)
    assert found["clock"].verdict == verdict
    assert failed(found) == (["clock"] if verdict == "failure" else [])
    if skew:
        assert ("behind" if skew > 0 else "ahead") in found["clock"].message


async def test_a_refused_token_is_not_pinned_on_the_secret_where_the_clock_may_be_why(harness: WorkerHarness) -> None:
    """Tokens follow the platform's clock by an hour: beyond that they are refused, whatever signed them."""
    harness.simulator.alter({"clock_skew": 7200})
    found = await bot_findings(harness, client_secret=WRONG_SECRET)
    assert failed(found) == ["API", "clock"]
    hint = found["API"].hint
    assert hint.index("clock") < hint.index("bots.bot.client_secret")


async def test_a_clock_that_is_years_away_is_told_with_what_follows(harness: WorkerHarness) -> None:
    harness.simulator.alter({"clock_skew": 1_000_000_000})
    found = await bot_findings(harness)
    assert found["clock"].verdict == "failure"
    assert "an hour at most" in found["clock"].hint
