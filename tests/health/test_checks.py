"""The checks that `doctor` makes: what each finds, and the hint that it gives."""

from __future__ import annotations

from typing import Any

import pytest

from archiver.cli.serving import bot_access
from archiver.health import store_checks
from archiver.health.checks import Finding, check_bot, check_configuration, check_database, check_database_settings
from archiver.health.store_checks import check_store
from archiver.postgres.database import Database
from tests.worker.conftest import WorkerHarness


async def bot_findings(harness: WorkerHarness, **bot: Any) -> dict[str, Finding]:
    async with bot_access(harness.settings(bot=bot), harness.database) as bots:
        found = await check_bot(bots["bot"], budget=True)
    return {finding.check.partition(": ")[2]: finding for finding in found}


async def test_a_bot_that_is_well(harness: WorkerHarness) -> None:
    found = await bot_findings(harness)
    assert {check: finding.verdict for check, finding in found.items()} == {"token": "ok", "API": "ok", "clock": "ok"}
    assert harness.simulator.report()["api"]["calls"] == 1


async def test_rejected_credentials_are_told_with_their_hint(harness: WorkerHarness) -> None:
    harness.simulator.reject_credentials = True
    found = await bot_findings(harness)
    assert found["API"].verdict == "failure"
    assert "bots.bot.bot_id" in found["API"].hint


async def test_an_app_that_enforces_encrypted_tokens_is_told_apart(harness: WorkerHarness) -> None:
    harness.simulator.alter({"enforce_jwe": True})
    found = await bot_findings(harness)
    assert found["API"].verdict == "failure"
    assert "JWE" in found["API"].hint


@pytest.mark.parametrize("status", [401, 404])
async def test_a_bot_that_the_platform_does_not_know_is_a_failure(harness: WorkerHarness, status: int) -> None:
    harness.simulator.alter({"unknown_bot_status": status})
    found = await bot_findings(harness, bot_id="st-nobody")
    assert found["API"].verdict == "failure"
    assert "bots.bot.bot_id" in found["API"].hint


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


@pytest.mark.parametrize(("skew", "verdict"), [(0, "ok"), (60, "warning"), (-60, "warning"), (600, "failure")])
async def test_a_clock_that_is_wrong_is_told(harness: WorkerHarness, skew: int, verdict: str) -> None:
    harness.simulator.alter({"clock_skew": skew})
    found = await bot_findings(harness)
    assert found["clock"].verdict == verdict
    if skew:
        assert ("behind" if skew > 0 else "ahead") in found["clock"].message


async def test_a_clock_that_is_years_away_is_told_with_what_follows(harness: WorkerHarness) -> None:
    harness.simulator.alter({"clock_skew": 1_000_000_000})
    found = await bot_findings(harness)
    assert found["clock"].verdict == "failure"
    assert "an hour at most" in found["clock"].hint


async def test_a_store_that_works_and_one_that_does_not(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = await check_store(harness.settings(), None)
    assert (found.verdict, "the first worker makes it" in found.message) == ("ok", True)
    assert not harness.root.exists()
    harness.root.mkdir()
    assert (await check_store(harness.settings(), None))[0].verdict == "ok"
    monkeypatch.setattr(store_checks, "LOW_DISK", 1 << 62)
    assert (await check_store(harness.settings(), None))[0].verdict == "warning"
    blocked = harness.root.with_name("blocked")
    blocked.write_bytes(b"")
    (found,) = await check_store(harness.settings(storage={"url": blocked.as_uri()}), None)
    assert (found.verdict, found.hint != "") == ("failure", True)


async def test_a_database_that_is_migrated_empty_or_away(harness: WorkerHarness, empty_database_url: str) -> None:
    assert (await check_database(harness.database)).verdict == "ok"
    async with Database(empty_database_url, pool_size=1) as empty:
        found = await check_database(empty)
    assert (found.verdict, found.hint) == ("failure", "run `archiver migrate`")


def test_the_example_is_recognised_as_such(harness: WorkerHarness) -> None:
    (found,) = check_configuration(harness.settings(bot={"client_id": "cs-..."}))
    assert (found.verdict, "client_id" in found.message) == ("failure", True)
    (found,) = check_configuration(harness.settings())
    assert found.verdict == "ok"


async def test_settings_under_which_work_is_lost_or_never_done_are_told(harness: WorkerHarness, database_url: str) -> None:
    assert await check_database_settings(harness.database) == []
    name = database_url.rpartition("/")[2]
    await harness.rows(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    async with Database(database_url, pool_size=1) as direct:
        assert await check_database_settings(direct) == [], "a connection of ours sets its own"
    async with Database(database_url, listen_dsn=database_url, pool_size=1) as pooled:
        (found,) = await check_database_settings(pooled)
    assert (found.verdict, "serializable" in found.message, "ALTER ROLE" in found.hint) == ("warning", True, True)
