"""Requests whose bodies lie in memory and whose answers are read whole, over the connections of an aiohttp session.

aiohttp makes the connections (names, TLS, keeping them open), reads the answers and bounds them. What it does for each request
besides (cookies, redirects, sessions, payload classes, a task for the body, timers) takes twice as long as all of that, and as
long as everything else that a small recording needs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

Piece = bytes | bytearray | memoryview

SEND_BYTES = 128 * 1024
"""What is handed to the socket at a time: what it cannot take at once, the event loop copies."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(slots=True)
class Terms:
    """What an exchange is held to. `stall`: seconds in which nothing of the request could be sent, or nothing of its answer came;
    `answer`: seconds for all of an answer's body, of at most `longest` bytes.
    """

    stall: float
    answer: float
    longest: int


class TooLong(Exception):
    """The answer has more bytes than it may have."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, whatever its status."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Exchange:
    """Over the connections of `http`, which takes no proxy. The headers that it adds to each request are added here too."""

    def __init__(self, http: aiohttp.ClientSession, read_buffer: int, max_header: int) -> None:
        self._http = http
        self._read_buffer = read_buffer
        self._max_header = max_header
        self._origins: dict[str, tuple[aiohttp.ClientRequest, str]] = {}

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], pieces: Sequence[Piece], length: int, terms: Terms
    ) -> Answered:
        """One request; `url` is escaped already and has a path. It is not repeated, and its redirects are not followed.

        Raises aiohttp's errors, OSError (TimeoutError among them), TooLong.
        """
        at = url.index("/", url.index("://") + 3)
        origin, common = self._origin(url[:at])
        head = _head(method, url[at:], common, headers)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(terms.stall) as patience, self._connected(origin) as (protocol, transport):
            protocol.set_response_params(
                skip_payload=method == "HEAD",
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=self._read_buffer,
                max_line_size=self._max_header,
                max_field_size=self._max_header,
            )
            if length <= SEND_BYTES:
                transport.writelines([head, *pieces])
                message, content = await self._answer(origin, protocol)
            else:
                message, content = await self._answer_to(origin, head, pieces, terms.stall, patience, protocol, transport)
            body, last = bytearray(), loop.time() + terms.answer
            while not content.at_eof():
                patience.reschedule(min(loop.time() + terms.stall, last))
                body += await content.readany()
                if len(body) > terms.longest:
                    raise TooLong
            return Answered(message.code, message.headers, bytes(body))

    def _origin(self, origin: str) -> tuple[aiohttp.ClientRequest, str]:
        """What aiohttp connects for, and the headers of every request there."""
        known = self._origins.get(origin)
        if known is None:
            request = aiohttp.ClientRequest("GET", URL(origin, encoded=True), headers=self._http.headers)
            common = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            known = self._origins[origin] = request, common
        return known

    @asynccontextmanager
    async def _connected(self, origin: aiohttp.ClientRequest) -> AsyncIterator[tuple[ResponseHandler, asyncio.Transport]]:
        """A connection, which is kept for others if its exchange came to its end, and cut off at once if it did not."""
        connection = await self._connection(origin)
        protocol = connection.protocol
        assert protocol is not None
        assert protocol.transport is not None
        try:
            yield protocol, protocol.transport
        except BaseException:
            _cut_off(connection)
            raise
        if protocol.should_close:
            _cut_off(connection)
        else:
            connection.release()

    async def _connection(self, origin: aiohttp.ClientRequest) -> Connection:
        """One that was kept, or a new one."""
        connector = self._http.connector
        if connector is None:
            raise aiohttp.ClientConnectionError("the session is closed")
        while True:
            try:
                connection = await connector.connect(origin, [], self._http.timeout)
            except TimeoutError:
                raise aiohttp.ConnectionTimeoutError(f"no connection to {origin.url.host}:{origin.url.port} in time") from None
            protocol = connection.protocol
            # Something may have come over a kept one meanwhile, which nobody has asked for: it is no answer to what is asked now.
            if protocol is not None and protocol.is_connected() and not protocol.should_close:
                return connection
            _cut_off(connection)

    async def _answer(self, origin: aiohttp.ClientRequest, protocol: ResponseHandler) -> tuple[Any, aiohttp.StreamReader]:
        """The head of the answer, and what its body comes by."""
        while True:
            try:
                message, content = await protocol.read()
            except HttpProcessingError as error:
                raise aiohttp.ClientResponseError(origin.request_info, (), status=error.code, message=error.message) from None
            if not 100 <= message.code < 200 or message.code == 101:
                return message, content

    async def _answer_to(
        self,
        origin: aiohttp.ClientRequest,
        head: bytes,
        pieces: Sequence[Piece],
        stall: float,
        patience: asyncio.Timeout,
        protocol: ResponseHandler,
        transport: asyncio.Transport,
    ) -> tuple[Any, aiohttp.StreamReader]:
        """The same for a body that takes its time: a server may answer before it has all, and then need not have it all."""
        loop = asyncio.get_running_loop()

        async def write() -> None:
            try:
                transport.write(head)
                for piece in pieces:
                    for start in range(0, len(piece), SEND_BYTES):
                        patience.reschedule(loop.time() + stall)
                        if transport.is_closing():
                            return  # whoever reads learns why
                        transport.write(memoryview(piece)[start : start + SEND_BYTES])
                        await protocol._drain_helper()
            except Exception as error:  # noqa: BLE001  # it is for whoever reads, who would wait in vain
                if protocol.exception() is None:
                    protocol.set_exception(error)

        writing = loop.create_task(write())
        try:
            return await self._answer(origin, protocol)
        finally:
            if not writing.done():
                protocol.force_close()
                writing.cancel()


def _cut_off(connection: Connection) -> None:
    """Close at once. In order it would first send what is left, out of memory that others have by then."""
    if connection.protocol is not None:
        connection.protocol.abort()
    connection.close()


def _head(method: str, target: str, common: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request. Raises ValueError for a line's end in it, by which one could smuggle in another header, and for
    other controls, which some servers take for one.
    """
    own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"{method} {target} HTTP/1.1\r\n{common}{own}\r\n"
    lines = common.count("\n") + len(headers) + 2
    if head.count("\n") != lines or head.count("\r") != lines or _CONTROL.search(head):
        raise ValueError("a line's end or another control within a request's head")
    return head.encode()
