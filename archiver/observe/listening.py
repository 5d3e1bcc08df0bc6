"""A listening port whose connections are bounded in number, time and size, so that no flood disturbs the worker.

aiohttp alone would wait an hour for a request's head, and use every file descriptor that the worker has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

MAX_CONNECTIONS = 32
MAX_SECONDS = 10.0
"""Time for a connection, its request and its answer: Prometheus's default timeout."""
MAX_REQUEST_BYTES = 64 * 2**10
BACKLOG = 16
"""Connections that wait to be accepted."""


class _Connection(asyncio.Protocol):
    """Passes the events of one connection on to `inner`, and aborts it at a limit."""

    def __init__(self, inner: asyncio.Protocol, connections: dict[_Connection, None]) -> None:
        self._inner = inner
        self._connections = connections
        self._received = 0
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by descent
        self._deadline = asyncio.get_running_loop().call_later(MAX_SECONDS, self.abort)
        self._connections[self] = None
        if len(self._connections) > MAX_CONNECTIONS:
            # Requests are answered within milliseconds: the oldest connection is an idle one.
            next(iter(self._connections)).abort()
        self._inner.connection_made(transport)

    def abort(self) -> None:
        """Close the connection at once, unsent data included."""
        self._connections.pop(self, None)
        self._deadline.cancel()
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MAX_REQUEST_BYTES:
            self.abort()
        else:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.pop(self, None)
        self._deadline.cancel()
        self._inner.connection_lost(exc)


@asynccontextmanager
async def listening(make: Callable[[], asyncio.Protocol], host: str, port: int) -> AsyncIterator[int]:
    """Serve connections to `host` and `port` with the protocols that `make` returns, within the limits above. Yields the port;
    0 asks for a free one.

    Raises OSError, UnicodeError. Connections that are open at the end are aborted.
    """
    connections: dict[_Connection, None] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(make(), connections), host, port, backlog=BACKLOG)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in list(connections):
            connection.abort()
