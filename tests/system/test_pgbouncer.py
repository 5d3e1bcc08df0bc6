"""The command line with a pgbouncer before its database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.pgbouncer import Mode, pgbouncer
from tests.system.conftest import Program

SESSIONS = [f"session-{number:02}" for number in range(20)]

WHAT_TO_DO = "database.listen_url"


@pytest.fixture
async def transactions(database_url: str) -> AsyncIterator[str]:
    """The database through a pgbouncer that lends a server for a transaction, each in turn."""
    async with pgbouncer(database_url, "transaction", server_round_robin=1) as url:
        yield url


async def drained(archiver: Program, simulator: Simulator, sql: Any) -> None:
    """Sessions are enqueued and archived, the store is whole, and no lock stays with a server."""
    for session_id in SESSIONS:
        simulator.script({"session_id": session_id})
    assert (await archiver("enqueue", *SESSIONS)).code == 0
    result = await archiver("worker", "--drain")
    assert (result.code, result.stdout) == (0, ""), result
    assert [tuple(row) for row in await sql.fetch("SELECT state, count(*) FROM archive_sessions GROUP BY 1")] == [
        ("archived", 20)
    ]
    assert (await archiver("verify")).code == 0
    assert not await sql.fetchval(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )


async def test_a_worker_drains_through_lent_servers_and_listens_directly(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any, transactions: str
) -> None:
    data["database"] |= {"url": transactions, "listen_url": data["database"]["url"]}
    archiver.configure(data)
    assert (await archiver("migrate")).code == 0
    await drained(archiver, simulator, sql)
    assert (await archiver("doctor")).code == 0


async def test_a_worker_behind_lent_servers_is_woken_by_the_server_itself(
    archiver: Program, data: dict[str, Any], simulator: Simulator, transactions: str
) -> None:
    data["database"] |= {"url": transactions, "listen_url": data["database"]["url"]}
    archiver.configure(data)
    running = await archiver.start("worker")
    await running.logged("worker_started")
    for number, session_id in enumerate(SESSIONS[:3], start=1):
        simulator.script({"session_id": session_id})
        assert (await archiver("enqueue", session_id)).code == 0
        await running.logged("session_archived", times=number)


@pytest.mark.parametrize(
    ("mode", "words"), [("transaction", ["worker", "--drain"]), ("transaction", ["status"]), ("statement", ["enqueue", "x"])]
)
async def test_lent_servers_without_a_way_to_listen_are_refused(
    archiver: Program, data: dict[str, Any], database_url: str, sql: Any, words: list[str], mode: Mode
) -> None:
    async with pgbouncer(database_url, mode) as url:
        data["database"]["url"] = url
        archiver.configure(data)
        (await (await archiver.start(*words)).ended()).refused(2, WHAT_TO_DO)
    assert not await sql.fetchval("SELECT count(*) FROM archive_workers")


async def test_tables_are_not_made_through_lent_servers_without_a_way_to_listen(
    archiver: Program, data: dict[str, Any], empty_database_url: str
) -> None:
    async with pgbouncer(empty_database_url) as url:
        data["database"]["url"] = url
        archiver.configure(data)
        (await archiver("migrate")).refused(2, WHAT_TO_DO)
    data["database"]["url"] = empty_database_url
    archiver.configure(data)
    (await archiver("status")).refused(1, "never migrated")


async def test_doctor_tells_of_lent_servers_without_a_way_to_listen(
    archiver: Program, data: dict[str, Any], transactions: str
) -> None:
    data["database"]["url"] = transactions
    archiver.configure(data)
    await fails_of_database(archiver)


async def test_a_way_to_listen_that_leads_through_lent_servers_too_is_refused(
    archiver: Program, data: dict[str, Any], transactions: str
) -> None:
    data["database"] |= {"url": transactions, "listen_url": transactions}
    archiver.configure(data)
    (await (await archiver.start("worker")).ended()).refused(2, WHAT_TO_DO)
    await fails_of_database(archiver)


async def test_only_the_way_to_listen_leads_through_lent_servers(
    archiver: Program, data: dict[str, Any], transactions: str
) -> None:
    data["database"]["listen_url"] = transactions
    archiver.configure(data)
    (await archiver("worker", "--drain")).refused(2, WHAT_TO_DO)
    await fails_of_database(archiver)


async def fails_of_database(archiver: Program) -> None:
    """Doctor's one failure is the database's, with what to do."""
    result = await archiver("doctor", "--json")
    assert result.code == 3, result
    (failure,) = (each for each in result.document["findings"] if each["verdict"] == "failure")
    assert failure["check"] == "database"
    assert WHAT_TO_DO in failure["message"]
    assert failure["hint"]


async def test_a_proxy_that_leaves_a_server_to_each_connection_needs_nothing(
    archiver: Program, data: dict[str, Any], database_url: str, simulator: Simulator, sql: Any
) -> None:
    async with pgbouncer(database_url, "session") as url:
        data["database"]["url"] = url
        archiver.configure(data)
        assert (await archiver("migrate")).code == 0
        await drained(archiver, simulator, sql)
        assert (await archiver("doctor")).code == 0


@pytest.mark.parametrize("settings", [{"default_pool_size": 1}, {"max_client_conn": 1}], ids=str)
async def test_one_connection_is_enough_for_a_command(
    archiver: Program, data: dict[str, Any], database_url: str, settings: dict[str, int]
) -> None:
    async with pgbouncer(database_url, "session", **settings) as url:
        data["database"]["url"] = f"{url}?connect_timeout=2"
        archiver.configure(data)
        (await archiver("healthcheck")).refused(1, "no worker of host")
