"""The connection: bounded, told apart when it fails, and never telling the password."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest

from archiver.config import DatabaseSettings
from archiver.errors import ArchiverError, ConfigError, DatabaseError, DatabaseUnreachable
from archiver.postgres.database import WAKE_SECONDS, Database, open_database
from archiver.queue.sessions import NewSession, Queue
from archiver.queue.sql import sql
from tests.conftest import RETRY
from tests.queue.conftest import QueueHarness


def with_parts(url: str, **parts: object) -> str:
    split = urlsplit(url)
    given = {"user": split.username, "password": split.password, "host": split.hostname, "port": split.port, **parts}
    return f"postgresql://{given['user']}:{given['password']}@{given['host']}:{given['port']}{parts.get('path', split.path)}"


@pytest.mark.parametrize(
    ("parts", "kind", "says"),
    [
        ({"port": 1}, DatabaseUnreachable, "cannot be reached"),
        ({"host": "no-such-host.invalid"}, DatabaseUnreachable, "cannot be reached"),
        ({"password": "wr0ng-pass"}, DatabaseUnreachable, "password authentication failed"),
        ({"user": "nobody-here"}, DatabaseUnreachable, "password authentication failed"),
        ({"path": "/no_such_database"}, DatabaseUnreachable, 'database "no_such_database" does not exist'),
        ({"port": "abc"}, ConfigError, "database.url"),
        ({"port": 99999}, ConfigError, "database.url"),
        ({"password": "un/wr0ng-pass"}, ConfigError, "database.url"),
        ({"password": "un[wr0ng-pass"}, ConfigError, "database.url"),
        ({"password": "un#wr0ng-pass"}, ConfigError, "database.url"),
        ({"path": "/x?sslmode=perhaps"}, ConfigError, "sslmode"),
    ],
)
async def test_what_is_wrong_is_one_clear_line_without_the_password(
    database_url: str, parts: dict[str, object], kind: type[ArchiverError], says: str
) -> None:
    url = with_parts(database_url, **parts)
    with pytest.raises(kind) as caught:
        async with Database(url):
            pass
    told = f"{caught.value} {caught.value.hint} {caught.value.facts}"
    assert says in told
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert "wr0ng" not in told
    assert str(urlsplit(database_url).password) not in told
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("url", ["mysql://u:wr0ng-pass@h/d", "nonsense"])
async def test_a_url_of_something_else_is_a_mistake_of_the_configuration(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url: must be a Postgres URL"):
        async with Database(url):
            pass


async def test_nothing_of_the_url_is_in_its_repr(database: Database) -> None:
    assert repr(database) == "Database(...)"


async def test_the_pool_outlives_the_loss_of_every_connection(harness: QueueHarness) -> None:
    await asyncio.gather(*(harness.queue.clock() for _ in range(8)))
    killer = await asyncpg.connect(harness.database.dsn)
    try:
        for _ in range(2):
            killed = await killer.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()"""
            )
            assert killed
            ends = await asyncio.gather(*(harness.queue.clock() for _ in range(8)), return_exceptions=True)
            assert not [end for end in ends if isinstance(end, BaseException) and not isinstance(end, DatabaseUnreachable)]
            await harness.queue.clock()
    finally:
        await killer.close()


async def test_a_statement_cut_off_in_the_middle_is_told_and_undone(harness: QueueHarness) -> None:
    await harness.add("s-1")
    async with harness.locked("SELECT FROM archive_queue FOR UPDATE"):
        cancelling = asyncio.create_task(harness.operators.cancel(ids=None, bot=None, kind=None, reason="r", actor="me"))
        await harness.fetch("SELECT pg_terminate_backend($1)", await harness.blocked())
        with pytest.raises(DatabaseUnreachable):
            await cancelling
    assert (await harness.row("s-1"))["state"] == "pending"


async def test_a_value_that_the_database_cannot_hold_is_refused_as_such(harness: QueueHarness) -> None:
    with pytest.raises(DatabaseError):
        await harness.reports.find_session("nul\0", None, None)
    await harness.queue.clock()


async def test_a_notification_wakes(harness: QueueHarness) -> None:
    wake = asyncio.Event()
    async with harness.database.listening(wake):
        assert not wake.is_set()
        await harness.add("s-1")
        await asyncio.wait_for(wake.wait(), 20)


async def test_a_listener_that_is_cut_off_is_noticed_by_its_check(harness: QueueHarness) -> None:
    async with harness.database.listening(asyncio.Event()) as connection:
        await harness.fetch("SELECT pg_terminate_backend($1)", connection.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            await connection.execute("SELECT 1", timeout=10)


async def test_behind_a_pooler_nothing_stays_prepared_and_listening_goes_elsewhere(database_url: str) -> None:
    settings = DatabaseSettings.model_validate({"url": database_url, "listen_url": database_url})
    async with open_database(settings) as database:
        await database.rows(sql("report/clock"))
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
        wake = asyncio.Event()
        async with database.listening(wake):
            await Queue(database, RETRY).enqueue([NewSession("bot", "s-1")], actor="me")
            await asyncio.wait_for(wake.wait(), 20)


async def test_a_listen_url_that_is_none_names_its_own_key(database_url: str) -> None:
    async with Database(database_url, listen_dsn="nonsense") as database:
        with pytest.raises(ConfigError, match=r"database\.listen_url"):
            async with database.listening(asyncio.Event()):
                pass


async def test_a_value_that_cannot_be_sent_is_not_put_down_to_the_connection(database: Database) -> None:
    with pytest.raises(DatabaseError, match="out of int64 range") as caught:
        await database.rows(sql("upkeep/delete_leftover"), queue_id=2**70, epoch=1)
    assert not isinstance(caught.value, DatabaseUnreachable)


class Counted(asyncio.Event):
    """How often it was set."""

    times = 0

    def set(self) -> None:
        self.times += 1
        super().set()


async def test_a_listener_is_woken_at_once_and_then_once_a_second_however_many_insert(database: Database) -> None:
    wake, loop = Counted(), asyncio.get_running_loop()
    async with database.listening(wake) as listener, database.connection() as producer:
        began = loop.time()
        await producer.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-0')")
        async with asyncio.timeout(20):
            await wake.wait()
        wake.clear()
        for number in range(1, 200):
            await producer.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1)", f"s-{number}")
        await listener.execute("SELECT 1")  # whatever was sent has been heard by now
        assert wake.times <= 1 + (loop.time() - began) / WAKE_SECONDS
        async with asyncio.timeout(20):
            await wake.wait()  # for the last of them
        assert 2 <= wake.times <= 1 + (loop.time() - began) / WAKE_SECONDS


async def test_a_listen_url_to_another_database_is_refused(database_url: str, empty_database_url: str) -> None:
    async with Database(database_url, listen_dsn=empty_database_url) as database:
        with pytest.raises(ConfigError, match=r"database\.listen_url leads to another database"):
            async with database.listening(asyncio.Event()):
                pass


async def test_a_parameter_that_the_server_does_not_know_is_told_with_what_to_do(database_url: str) -> None:
    with pytest.raises(DatabaseError, match="no_such_setting") as caught:
        async with Database(f"{database_url}?no_such_setting=1"):
            pass
    assert "leave it out of database.url" in caught.value.hint
