"""The checks that `doctor` makes: what each finds, and the hint that it gives."""

from __future__ import annotations

import pytest

from archiver.health import store_checks
from archiver.health.checks import check_configuration, check_database, check_database_settings, check_schema
from archiver.health.store_checks import check_store
from archiver.postgres.database import Database
from archiver.postgres.migrations import migrations
from tests.worker.conftest import WorkerHarness


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


async def test_a_database_of_a_neighbouring_release_is_told_though_it_works(harness: WorkerHarness) -> None:
    assert await check_schema(harness.database) == []
    later = "INSERT INTO archive_migrations (version, name, sha256, min_program) VALUES ($1, 'later', 'x', '0.1')"
    await harness.rows(later, len(migrations()) + 1)
    assert (await check_database(harness.database)).verdict == "ok"
    (found,) = await check_schema(harness.database)
    assert (found.verdict, "newer than this program" in found.message, "upgrade" in found.hint) == ("warning", True, True)


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
