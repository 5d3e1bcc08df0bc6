"""Told apart by their behaviour: proxies that lend a server for a transaction, and those that leave it to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from archiver.postgres import pooling
from archiver.postgres.pooling import pools_transactions
from tests.pgbouncer import Mode, pgbouncer

pytestmark = pytest.mark.once

POOLS = [{}, {"server_round_robin": 1}, {"default_pool_size": 1}, {"default_pool_size": 4, "server_round_robin": 1},
         {"processes": 2}, {"processes": 3, "server_round_robin": 1}]  # fmt: skip


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    return await asyncpg.connect(url, statement_cache_size=0, timeout=20, command_timeout=20)


async def pooled(url: str) -> bool:
    first = await connect(url)
    try:
        return await pools_transactions(first, lambda: connect(url))
    finally:
        first.terminate()


@asynccontextmanager
async def others(url: str, count: int) -> AsyncIterator[None]:
    """So many clients, each of which has had a server, and sends it short statements as long as this lasts."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(count):
            clients.append(await connect(url))
            stack.callback(clients[-1].terminate)
            await clients[-1].execute("SELECT 1")
        done = asyncio.Event()

        async def work(client: asyncpg.Connection[asyncpg.Record], number: int) -> None:
            while not done.is_set():
                await client.execute(f"SELECT pg_sleep({0.001 * number})")

        async with asyncio.TaskGroup() as working:
            for number, client in enumerate(clients, start=1):
                working.create_task(work(client, number))
            try:
                yield
            finally:
                done.set()


async def test_no_proxy_is_none(database_url: str) -> None:
    async with others(database_url, 3):
        assert not await pooled(database_url)


@pytest.mark.parametrize("settings", POOLS, ids=str)
@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_servers_lent_for_a_transaction_are_found_however_they_are_lent(
    database_url: str, mode: Mode, settings: dict[str, int]
) -> None:
    async with pgbouncer(database_url, mode, **settings) as url:
        assert await pooled(url), "idle"
        for count in (1, 12):
            async with others(url, count):
                assert await pooled(url), f"beside {count} others"
        # Servers that were made for the others, and are idle now.
        assert await pooled(url)


@pytest.mark.parametrize("settings", POOLS, ids=str)
async def test_a_server_that_is_left_to_its_connection_is_its_own(
    database_url: str, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "WAIT_SECONDS", 0.3)
    size = settings.get("default_pool_size", 20)
    async with pgbouncer(database_url, "session", **settings) as url:
        for count in (0, 1, 12):
            if count < size:
                async with others(url, count):
                    assert not await pooled(url), f"beside {count} others"


async def test_a_full_pool_of_sessions_is_not_taken_for_one_of_transactions(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second connection waits, is turned away after a while, or is refused."""
    monkeypatch.setattr(pooling, "WAIT_SECONDS", 1.5)
    for settings in ({"default_pool_size": 1, "query_wait_timeout": 1}, {"max_client_conn": 1}, {"max_user_connections": 1}):
        async with pgbouncer(database_url, "session", **settings) as url:
            assert not await pooled(url), settings


async def test_a_pool_that_others_keep_busy_is_waited_for(database_url: str) -> None:
    """Transactions that last, in all servers: nobody overtakes whoever waits."""
    async with pgbouncer(database_url, default_pool_size=2) as url, AsyncExitStack() as stack:
        holders = [await connect(url), await connect(url)]
        for holder in holders:
            stack.callback(holder.terminate)
            await holder.execute("BEGIN")
        finding = asyncio.create_task(pooled(url))
        await holders[0].execute("SELECT pg_sleep(0.2); COMMIT")
        assert await finding


async def test_nothing_is_left_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "WAIT_SECONDS", 0.3)
    made: list[asyncpg.Connection[asyncpg.Record]] = []

    async def counted() -> asyncpg.Connection[asyncpg.Record]:
        made.append(await connect(url))
        return made[-1]

    for mode in ("transaction", "session"):
        async with pgbouncer(database_url, mode, default_pool_size=2) as url:
            first = await connect(url)
            before = asyncio.all_tasks()
            await pools_transactions(first, counted)
            assert asyncio.all_tasks() == before
            assert not first.is_closed(), "the caller's"
            first.terminate()
    assert len(made) == 1 + 2
    assert all(connection.is_closed() for connection in made)
