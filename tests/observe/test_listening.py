from __future__ import annotations

import asyncio
import contextlib

import pytest

from archiver.observe import listening as bounds
from archiver.observe.listening import listening


class Deaf(asyncio.Protocol):
    """Takes everything and answers nothing."""


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Wait until the other side has ended the connection; what came before that."""
    with contextlib.suppress(ConnectionResetError):
        return await asyncio.wait_for(reader.read(), 20)
    return b""


async def test_a_connection_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SECONDS", 0.05)
    async with listening(Deaf, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await ended(reader) == b""
        writer.transport.abort()


async def test_a_request_has_its_length() -> None:
    async with listening(Deaf, "127.0.0.1", 0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * (bounds.MAX_REQUEST_BYTES + 1))
        assert await ended(reader) == b""
        writer.transport.abort()


async def test_the_oldest_connection_makes_room() -> None:
    async with listening(Deaf, "127.0.0.1", 0) as port:
        all_of_them = [await asyncio.open_connection("127.0.0.1", port) for _ in range(bounds.MAX_CONNECTIONS + 1)]
        assert await ended(all_of_them[0][0]) == b""
        second = asyncio.create_task(ended(all_of_them[1][0]))
        all_of_them.append(await asyncio.open_connection("127.0.0.1", port))
        assert await second == b""
        assert not all_of_them[2][0].at_eof()
    for reader, writer in all_of_them:
        await ended(reader)
        writer.transport.abort()
