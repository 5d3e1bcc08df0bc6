"""Whether a URL leads through a proxy that gives each transaction to whichever connection to the server is free."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import asyncpg

from archiver.errors import ConfigError

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CONNECTIONS = 4
"""How many are compared: if up to three proxies share the work, two of these meet at one, and there get the same server."""

WAIT_SECONDS = 2.0
"""How long a further one may wait: to be let in, and for a server, before we look whether the others wait as well."""


async def pools_transactions(first: _Connection, connect: Callable[[], Awaitable[_Connection]]) -> bool:
    """Whether `first`, and further connections made by `connect`, lose their servers at the end of each transaction.

    One round trip where no proxy is on the way. Changes nothing on the server. Where the answer is True it is certain. A proxy
    that does not give us enough connections to compare counts as one that leaves their servers to us. Raises what the driver
    raises of `first`.
    """
    if not await through_proxy(first):
        return False
    async with AsyncExitStack() as stack:
        servers = {first: await _server(first)}
        while len(servers) < CONNECTIONS:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    newcomer = await connect()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                return False  # such as: no more of them are allowed
            asking = asyncio.create_task(_server(newcomer))
            stack.push_async_callback(_leave, newcomer, asking)
            await asyncio.wait({asking}, timeout=WAIT_SECONDS)
            # Each is asked twice running: servers that are lent in turn could come back to whom they were lent before.
            for connection, server in servers.items():
                if await _server(connection) != server or await _server(connection) != server:
                    return True
            if not asking.done() or asking.exception() is not None:
                return False  # it waits, or was refused, while the others are served: theirs are their own
            # Whose it was has answered since, so it was not given up meanwhile.
            if asking.result() in servers.values():
                return True
            servers[newcomer] = asking.result()
    return False


async def refuse_pooling(key: str, connection: _Connection, connect: Callable[[], Awaitable[_Connection]]) -> None:
    """Raises ConfigError, and ends the connection, where a proxy gives each of our transactions to another server: what is
    prepared, listened to or locked in a session would be lost, or somebody else's. `key` says where the connection leads.
    """
    try:
        if not await pools_transactions(connection, connect):
            return
    except BaseException:
        connection.terminate()
        raise
    connection.terminate()
    alone = key == "database.url"
    raise ConfigError(
        f"{key} leads through a proxy that pools transactions, such as pgbouncer{', and database.listen_url is empty' * alone}",
        hint=f"let {'database.listen_url' if alone else 'it'} lead to Postgres itself, for LISTEN and locks; database.url may "
        "lead through pool_mode = transaction or session, not through statement",
    )


async def through_proxy(connection: _Connection) -> bool:
    """Whether the server that answers is another one than the connection was told of when it was made; one round trip."""
    return await _server(connection) != connection.get_server_pid()


async def _leave(connection: _Connection, asking: asyncio.Task[int]) -> None:
    connection.terminate()
    await asyncio.gather(asking, return_exceptions=True)


async def _server(connection: _Connection) -> int:
    """The process that serves it now. By COPY, which prepares no statement: that would stay with the server, and meet another one
    of its name there.
    """
    answer = bytearray()

    async def take(data: bytes) -> None:
        answer.extend(data)

    await connection.copy_from_query("SELECT pg_backend_pid()", output=take)
    return int(answer)
