"""The connection to Postgres: a bounded pool, statements with named parameters, foreign errors translated at the edge."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Self

import asyncpg

from archiver.config import DatabaseSettings
from archiver.errors import ConfigError, DatabaseError, DatabaseUnreachable, NotMigrated
from archiver.observe.logs import logger
from archiver.postgres.foreign_locks import held_by_foreign_role
from archiver.postgres.json_codec import from_json, to_json
from archiver.postgres.pooling import refuse_pooling
from archiver.postgres.statements import Statement
from archiver.postgres.tls import Endpoint, endpoint_of, tls_refused

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

_UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says whose end arrived between two statements
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Not what we say, but when: rows that others have locked.
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
)


_WRITABLE = (
    "let database.url lead to the primary (it may list several hosts: the one that takes writes is used); where a server or "
    "role is read-only (default_transaction_read_only, as services set it when a disk is full), look why"
)


async def pause_after_deadlock() -> None:
    """Let the other go on, which had to wait for what was undone."""
    await asyncio.sleep(DEADLOCK_PAUSE_SECONDS * random.uniform(0.1, 1))  # noqa: S311  # jitter, no secret


@contextmanager
def translated(key: str = "database.url") -> Iterator[None]:
    """Turn what asyncpg and the network raise into errors of ours, redacted. `key` says where the connection leads."""
    try:
        with tls_refused(key):
            yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError) as error:
        raise NotMigrated(f"the database lacks what this version needs: {error}") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(
            f"the database refused: {error}",
            hint="run `archiver migrate` as the owner, or have the owner grant this user what it named",
        ) from None
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise DatabaseUnreachable(f"the database refused this user: {error}") from None
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseUnreachable(f"{error}", hint="create the database, or correct database.url") from None
    except (asyncpg.ReadOnlySQLTransactionError, asyncpg.TargetServerAttributeNotMatched):
        raise DatabaseUnreachable("the database takes no writes: it is a standby, or read-only", hint=_WRITABLE) from None
    except asyncpg.InvalidCachedStatementError:  # in a transaction: elsewhere the driver runs such a statement again
        raise DatabaseUnreachable("the tables were changed in the middle of a transaction", hint="run this again") from None
    except _UNREACHABLE as error:
        # What the driver says of its own state helps nobody.
        text = "the connection broke" if isinstance(error, asyncpg.InternalClientError) else str(error) or type(error).__name__
        hint = f"check {key}, that the server runs, and that it accepts this user"
        if "unsupported startup parameter" in text:  # pgbouncer's words
            hint = "leave it out of the URL, or name it in pgbouncer's ignore_startup_parameters"
        raise DatabaseUnreachable(f"the database cannot be reached: {text}", hint=hint) from None
    except asyncpg.UndefinedObjectError as error:
        hint = f"leave it out of {key}" if "configuration parameter" in str(error) else ""
        raise DatabaseError(f"the database refused: {error}", hint=hint) from None
    except asyncpg.PostgresError as error:
        raise DatabaseError(f"the database refused: {error}") from None


@contextmanager
def _connecting(key: str) -> Iterator[None]:
    """`translated`, and what is wrong with the URL itself. Its text is never quoted: what follows a `/` or `:` in a password
    that is not percent-encoded is taken for a port or a host, and would be shown.
    """
    with translated(key):
        try:
            yield
        except ssl.SSLError:
            raise  # some of these are ValueErrors, too
        except (ValueError, OverflowError) as error:
            about_sslmode = isinstance(error, asyncpg.ClientConfigurationError) and "sslmode" in str(error)
            raise ConfigError(
                f"{key}: {error if about_sslmode else 'must be a Postgres URL'}",
                hint="a Postgres URL with special characters of user and password percent-encoded, or embedded:PATH",
            ) from None


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
        self._pooling_seen = self._listening_seen = False

    def __repr__(self) -> str:
        return "Database(...)"

    async def __aenter__(self) -> Self:
        with _connecting("database.url"):
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
        except (*_UNREACHABLE, asyncpg.PostgresError):
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
        with translated():
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
        with _connecting(self._listen_key):
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
