"""A port of a worker's that no flood can turn against its work: few connections, each for one short request, soon over.

aiohttp alone would wait an hour for a request's head, and take every descriptor that the worker has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

MAX_CONNECTIONS = 32
MAX_SECONDS = 10.0
"""Of a connection, its request and its answer: as long as Prometheus waits unless it is told otherwise."""
MAX_REQUEST_BYTES = 64 * 2**10
BACKLOG = 16
"""Connections that may be accepted at once, before the oldest can make room."""


class _Connection(asyncio.Protocol):
    """Passes on to `inner` what happens to one connection, and ends it when it has had its share."""

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
            # Who asks is answered within milliseconds: the oldest is the one that has been waiting for nothing.
            next(iter(self._connections)).abort()
        self._inner.connection_made(transport)

    def abort(self) -> None:
        """End it at once, whatever is on its way."""
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
    """Have connections to `host` and `port` served by what `make` makes, within the bounds; the port, where 0 is any free one.

    Raises OSError, UnicodeError. What is still connected at the end is cut off.
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
