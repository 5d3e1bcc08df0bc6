"""Parameters of a database URL that psql takes: each is taken, or refused with what to do instead."""

from __future__ import annotations

import socket

import asyncpg
import pytest

from archiver.errors import ConfigError, DatabaseUnreachable
from archiver.postgres.database import Database
from archiver.queue.sql import sql
from tests.servers import free_ports

pytestmark = pytest.mark.once  # what a URL means is the same under every Python

TAKEN = [
    "connect_timeout=5",
    "connect_timeout=0",
    "connect_timeout=-1",
    "channel_binding=prefer",
    "channel_binding=disable",
    "gssencmode=disable",
    "gssencmode=prefer",
    "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=10000",
    "keepalives=0",
    "sslcompression=0&sslsni=1&sslcertmode=allow",
    "load_balance_hosts=disable",
    "client_encoding=UTF8",
    "fallback_application_name=archiver",
    "application_name=calls",
    "target_session_attrs=any",
    "target_session_attrs=primary",
    "options=-c%20statement_timeout%3D60000",
]

REFUSED = [
    ("channel_binding=require", "sslmode=verify-full"),
    ("gssencmode=require", "TLS"),
    ("require_auth=scram-sha-256", "sslmode=verify-full"),
    ("hostaddr=127.0.0.1", "in the place of the host"),
    ("sslkeylogfile=/tmp/keys", "leave it out"),
    ("replication=database", "ordinary connections"),
    ("client_encoding=LATIN1", "UTF-8"),
    ("connect_timeout=soon", "whole number"),
    ("keepalives_idle=99999999999999999999", "whole number"),
    ("target_session_attrs=standby", "write"),
    ("target_session_attrs=prefer-standby", "write"),
    ("target_session_attrs=foo", "write"),
]


@pytest.mark.parametrize("query", TAKEN)
async def test_what_psql_takes_is_taken(database_url: str, query: str) -> None:
    async with Database(f"{database_url}?{query}", pool_size=1) as database:
        assert await database.rows(sql("report/clock"))


@pytest.mark.parametrize(("query", "says"), REFUSED)
async def test_what_the_driver_cannot_do_is_refused_with_what_to_do(database_url: str, query: str, says: str) -> None:
    with pytest.raises(ConfigError, match=r"^database\.url: ") as caught:
        async with Database(f"{database_url}?{query}", pool_size=1):
            pass
    name, _, value = query.partition("=")
    assert name in str(caught.value)
    assert value in str(caught.value)
    assert says in f"{caught.value} {caught.value.hint}"


async def test_a_key_is_not_quoted_in_the_refusal(database_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with Database(f"{database_url}?scram_client_key=wr0ng-secret", pool_size=1):
            pass
    assert "wr0ng" not in f"{caught.value} {caught.value.hint}"


async def test_protection_that_the_environment_demands_is_not_passed_over(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCHANNELBINDING", "require")
    with pytest.raises(ConfigError, match="channel_binding=require"):
        async with Database(database_url, pool_size=1):
            pass


@pytest.mark.parametrize(("query", "alive", "idle"), [("", 1, 15), ("keepalives_idle=40", 1, 40), ("keepalives=0", 0, None)])
async def test_a_server_that_goes_away_without_a_word_is_missed(
    database_url: str, query: str, alive: int, idle: int | None
) -> None:
    url = f"{database_url}?{query}" if query else database_url
    async with Database(url, pool_size=1) as database, database.connection() as pooled:
        line = pooled._con._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == alive
        if idle is not None:
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle
            assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


async def test_of_several_hosts_the_next_is_tried_when_one_does_not_answer(database_url: str) -> None:
    """The first takes connections, and says nothing: a machine that hangs."""
    (port,) = free_ports(1)
    place = database_url.rpartition("@")[2].partition("/")[0]
    with socket.create_server(("127.0.0.1", port)):
        url = database_url.replace(place, f"127.0.0.1:{port},{place}") + "?connect_timeout=1"
        async with Database(url, pool_size=1) as database:
            assert await database.rows(sql("report/clock"))


async def test_a_server_that_does_not_answer_is_waited_for_once_by_those_who_read_too(database_url: str) -> None:
    (port,) = free_ports(1)
    place = database_url.rpartition("@")[2].partition("/")[0]
    with socket.create_server(("127.0.0.1", port)) as silent:
        with pytest.raises(DatabaseUnreachable):
            async with Database(database_url.replace(place, f"127.0.0.1:{port}") + "?connect_timeout=1", writes=False):
                pass
        silent.settimeout(5)
        silent.accept()[0].close()
        silent.settimeout(0)
        with pytest.raises(BlockingIOError):
            silent.accept()


async def test_a_database_that_takes_no_writes_is_refused_and_one_that_becomes_so_is_left(database_url: str) -> None:
    name = database_url.rpartition("/")[2]
    owner = await asyncpg.connect(database_url)
    try:
        async with Database(database_url, pool_size=2) as database:
            await database.rows(sql("report/clock"))
            await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            async with database.connection() as kept:
                await kept.execute("SET default_transaction_read_only = on")  # as a reload of the server's settings does
            with pytest.raises(DatabaseUnreachable, match="takes no writes"):
                await database.rows(sql("worker/record_bots"), bots=["b"], complete=False)
            with pytest.raises(DatabaseUnreachable, match="takes no writes") as caught:
                await database.rows(sql("report/clock"))
            assert "primary" in caught.value.hint
            await owner.execute("SET default_transaction_read_only = off")
            await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await database.rows(sql("worker/record_bots"), bots=["b"], complete=False)
    finally:
        await owner.close()
