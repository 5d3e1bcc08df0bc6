"""The connection to Postgres: a bounded pool, statements with named parameters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self

import asyncpg

from archiver.config import DatabaseSettings
from archiver.errors import ConfigError, DatabaseUnreachable
from archiver.observe.logs import logger
from archiver.postgres.foreign_locks import held_by_foreign_role
from archiver.postgres.json_codec import from_json, to_json
from archiver.postgres.pooling import refuse_pooling
from archiver.postgres.refusals import UNREACHABLE, connecting, translated
from archiver.postgres.statements import Statement
from archiver.postgres.tls import Endpoint, endpoint_of

log = logger(__name__)

STATEMENT_TIMEOUT = 30.0
"""Seconds that any wait for the database may last; no statement of ours needs a tenth of it."""

LOCK_POLL_SECONDS = 1.0
"""How often somebody who waits for another process looks again."""

DEADLOCK_TRIES = 3
"""How often a statement is run that lost a deadlock: with plain SQL of others that is possible, and it was undone whole."""

DEADLOCK_PAUSE_SECONDS = 0.2
"""Before each next try, at most: at once, it could take the same locks again before the other that waits for them is awake."""

ISOLATION = "read committed"
"""What statements that wait for rows are written for: under a stricter one they fail, and are begun again and again."""

WAKE_CHANNEL = "archive_queue"

WAKE_SECONDS = 1.0
"""A listener is woken so often at most: many producers may insert a row at a time, and whoever may log in may notify."""


async def pause_after_deadlock() -> None:
    """Let the other go on, which had to wait for what was undone."""
    await asyncio.sleep(DEADLOCK_PAUSE_SECONDS * random.uniform(0.1, 1))  # noqa: S311  # jitter, no secret


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=to_json, decoder=from_json)


async def _skip_reset(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """No statement of ours changes the session: asking the server to reset it would be a second trip for each of them. An open
    transaction is rolled back all the same.
    """


class Database:
    """A pool of connections. Every wait is bounded by STATEMENT_TIMEOUT; errors are ArchiverErrors.

    Behind a transaction-pooling pgbouncer (`listen_url` is set then) no statement is kept prepared. `port_now` says before each
    connection which port it goes to, in place of the URL's; it raises OSError if there is nobody to connect to. What never
    `writes` goes to a standby where there is no other server.
    """

    def __init__(
        self,
        dsn: str,
        *,
        listen_dsn: str = "",
        pool_size: int = 8,
        port_now: Callable[[], int] | None = None,
        writes: bool = True,
    ) -> None:
        self.dsn = dsn
        self.listen_dsn = listen_dsn or dsn
        self._cache_size = 0 if listen_dsn else 200
        self._listen_key = "database.listen_url" if listen_dsn else "database.url"
        self._pool_size = pool_size
        self._port_now = port_now
        self._writes = writes
        # UTC: a rate limit's day has 24 hours, also where the server's own zone changes its clocks.
        self._server_settings = {"application_name": "archiver", "timezone": "UTC"}
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._endpoint: Endpoint | None = None
        self._role = ""
        self._pooling_seen = self._listening_seen = False

    def __repr__(self) -> str:
        return "Database(...)"

    async def __aenter__(self) -> Self:
        with connecting("database.url"):
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=self._pool_size,
                command_timeout=STATEMENT_TIMEOUT,
                statement_cache_size=self._cache_size,
                connect=self._connect,
                init=self._prepare,
                reset=_skip_reset,
                server_settings=self._server_settings,
            )
        return self

    async def _connect(self, dsn: str | None = None, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        """One more connection of the pool. Its files are read anew: certificates are renewed while a worker runs."""
        try:
            endpoint = await endpoint_of("database.url", dsn or "")
        except ConfigError as error:
            if self._endpoint is None:
                raise
            # All was well when we began: somebody is at it, and it may be well again.
            raise DatabaseUnreachable(error.message, hint=error.hint) from None
        self._endpoint = endpoint
        connection = await self._connect_to(endpoint, **options)
        if not self._pooling_seen and self._listen_key == "database.url":
            await self._check_pooling("database.url", endpoint, connection)
            self._pooling_seen = True
        return connection

    async def _check_pooling(self, key: str, endpoint: Endpoint, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        direct = partial(self._connect_to, endpoint, statement_cache_size=0, command_timeout=STATEMENT_TIMEOUT)
        await refuse_pooling(key, connection, direct)

    async def _connect_to(self, endpoint: Endpoint, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        if self._port_now is not None:
            options["port"] = [await asyncio.to_thread(self._port_now)]
        return await endpoint.connect(writes=self._writes, **options)

    async def _prepare(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._role = getattr(connection.get_settings(), "session_authorization", "")
        await _prepare(connection)
        if self._cache_size:
            # What can be found by an index is to be found so: a plan that was made while a table was small is kept, and would
            # read the whole table when it has grown. What needs all rows reads them all the same. Before Postgres 18 such a
            # scan seems so dear that it would be compiled.
            await connection.execute(
                f"SET enable_seqscan = off; SET jit = off; SET default_transaction_isolation = '{ISOLATION}'"
            )

    async def _check_same_database(self, listening: asyncpg.Connection[asyncpg.Record]) -> None:
        """Raises ConfigError, and ends the connection, where `listen_url` leads to another database than `url`."""
        place = "SELECT current_database(), pg_postmaster_start_time()"
        try:
            async with self.connection() as pooled:
                ours = await pooled.fetchrow(place)
            theirs = await listening.fetchrow(place)
        except BaseException:
            listening.terminate()
            raise
        if ours != theirs:
            listening.terminate()
            raise ConfigError(
                "database.listen_url leads to another database than database.url",
                hint="let both lead to one, the former without a proxy that pools transactions",
            )

    async def __aexit__(self, *_: object) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), 5)
        except (*UNREACHABLE, asyncpg.PostgresError):
            pool.terminate()
        except asyncio.CancelledError:
            pool.terminate()
            raise

    async def reads_standby(self) -> bool:
        """Whether it leads to a server that may be behind the primary."""
        async with self.connection() as connection:
            return getattr(connection.get_settings(), "in_hot_standby", "off") == "on"

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]:
        """One connection of the pool, for what needs a transaction or a session of its own."""
        assert self._pool is not None, "used outside its `async with`"
        with translated(role=lambda: self._role):
            async with self._pool.acquire(timeout=STATEMENT_TIMEOUT) as connection:
                try:
                    yield connection
                except asyncpg.ReadOnlySQLTransactionError:
                    # This server became a standby, or read-only, under its connections. New ones find the one that takes writes.
                    connection.terminate()
                    await self._pool.expire_connections()
                    raise

    async def connect_beside_pool(self) -> tuple[Endpoint, asyncpg.Connection[asyncpg.Record]]:
        """A connection beside the pool, where LISTEN goes; the caller's to end."""
        with connecting(self._listen_key):
            endpoint = await endpoint_of(self._listen_key, self.listen_dsn)
            connection = await self._connect_to(endpoint, command_timeout=STATEMENT_TIMEOUT)
            if not self._listening_seen and self._listen_key != "database.url":
                await self._check_pooling(self._listen_key, endpoint, connection)
                await self._check_same_database(connection)
                self._listening_seen = True
        return endpoint, connection

    async def protection(self) -> str:
        """What protects the connections on their way, for people."""
        assert self._endpoint is not None, "used outside its `async with`"
        async with self.connection() as pooled:
            protection = self._endpoint.describe(pooled)
        if self._listen_key == "database.url":
            return protection
        endpoint, connection = await self.connect_beside_pool()
        try:
            return f"{protection}; listen_url: {endpoint.describe(connection)}"
        finally:
            connection.terminate()

    async def rows(self, statement: Statement, **parameters: Any) -> list[asyncpg.Record]:
        """Run a statement, return its rows. Raises TypeError where a parameter is missing or unknown."""
        arguments = statement.arguments(parameters)
        for tries_left in reversed(range(DEADLOCK_TRIES)):
            async with self.connection() as connection:
                try:
                    if self._cache_size:
                        return await connection.fetch(statement.text, *arguments)
                    # pgbouncer: outside a transaction, preparing and executing might reach two different servers.
                    async with connection.transaction():
                        return await connection.fetch(statement.text, *arguments)
                except asyncpg.DeadlockDetectedError:
                    if not tries_left:
                        raise
            await pause_after_deadlock()
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Callable[..., Awaitable[list[asyncpg.Record]]]]:
        """What runs statements in one transaction, as `rows` does by itself: `await run(statement, name=value)`."""
        async with self.connection() as connection, connection.transaction():

            def run(statement: Statement, **parameters: Any) -> Awaitable[list[asyncpg.Record]]:
                return connection.fetch(statement.text, *statement.arguments(parameters))

            yield run

    async def row(self, statement: Statement, **parameters: Any) -> asyncpg.Record | None:
        """Run a statement, return its first row, if any."""
        rows = await self.rows(statement, **parameters)
        return rows[0] if rows else None

    @asynccontextmanager
    async def listening(self, wake: asyncio.Event) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of its own that sets `wake` at a notification: at once, and once more for all that come within
        WAKE_SECONDS after.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        woken_at = float("-inf")

        def wake_now() -> None:
            nonlocal timer, woken_at
            timer, woken_at = None, loop.time()
            wake.set()

        def on_notification(*_: object) -> None:
            nonlocal timer
            if timer is None:
                timer = loop.call_at(max(loop.time(), woken_at + WAKE_SECONDS), wake_now)

        _, connection = await self.connect_beside_pool()
        try:
            with translated():
                await connection.add_listener(WAKE_CHANNEL, on_notification)
            yield connection
        finally:
            connection.terminate()
            if timer is not None:
                timer.cancel()

    @asynccontextmanager
    async def alone(self, what: str, *, on_wait: Callable[[], None]) -> AsyncIterator[None]:
        """No other process is within `alone` of the same name meanwhile; `on_wait` is called once if one is, which is waited for.

        If the connection breaks others may enter: what is done here has to bear that. So nobody is waited for who has no business
        with such a lock: whoever may log in can take it, and need never give it back.
        """
        _, connection = await self.connect_beside_pool()
        try:
            waiting = False
            # A host that dies must not keep its lock until somebody notices.
            with translated():
                await connection.execute(
                    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3"
                )
            while True:
                with translated():
                    key = await connection.fetchval("SELECT hashtextextended($1, 0)", f"archiver {what}")
                    if await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
                        break
                    if await held_by_foreign_role(connection, key, what):
                        break
                if not waiting:
                    on_wait()
                    waiting = True
                await asyncio.sleep(LOCK_POLL_SECONDS)
            yield
        finally:
            connection.terminate()


@asynccontextmanager
async def open_database(settings: DatabaseSettings, *, pool_size: int = 8, writes: bool = True) -> AsyncIterator[Database]:
    """The configured database, the embedded one started if need be. Does not look at its version. `writes`: see Database."""
    listen = settings.listen_url.get_secret_value()
    path = settings.embedded_path
    if path is not None:
        from archiver.postgres.embedded.server import embedded_postgres, serving_port

        async with (
            embedded_postgres(path) as dsn,
            # It has no TLS, whatever PGSSLMODE asks of another one.
            Database(f"{dsn}?sslmode=disable", pool_size=pool_size, port_now=partial(serving_port, path)) as database,
        ):
            yield database
    else:
        dsn = settings.url.get_secret_value()
        async with Database(dsn, listen_dsn=listen, pool_size=pool_size, writes=writes) as database:
            yield database
