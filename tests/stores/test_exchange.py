"""Requests over the connections of aiohttp, without its requests: what a server may do, and what must not go out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from archiver.runtime.network import DIRECT, MAX_HEADER
from archiver.stores.bucket.exchange import Answered, Exchange, Terms, TooLong

TERMS = Terms(stall=20, answer=20, longest=100_000)
LONG = bytes(8 * 2**20)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ask = Callable[..., Awaitable[Answered]]


@asynccontextmanager
async def asking(serve: Serve) -> AsyncIterator[Ask]:
    """Asks a server that serves each connection so. Raises if a handler of it did."""
    failed: list[BaseException] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except Exception as error:  # noqa: BLE001  # it is for the test
            failed.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, DIRECT.session({"limit": 0}) as http:
        exchange = Exchange(http, 2**16, MAX_HEADER)

        async def ask(method: str = "PUT", body: bytes = b"", path: str = "/k", terms: Terms = TERMS, **headers: str) -> Answered:
            sent = {"Content-Length": str(len(body)), **headers}
            return await exchange(method, url + path, sent, [body] if body else [], len(body), terms)

        yield ask
    assert not failed


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def test_answers_of_all_shapes_are_read_whole_over_one_connection() -> None:
    answers = [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "x"\r\n\r\n', b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", b"gone"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", b"abcd"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", b"to the end"),
    ]
    connections, left = 0, list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while left:
            await head_of(reader)
            writer.write(left.pop(0)[0])
            await writer.drain()

    async with asking(serve) as ask:
        for _, body in answers:
            assert (await ask()).body == body
    assert connections == 1


async def test_a_head_has_what_was_given_and_no_line_more() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await head_of(reader))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with asking(serve) as ask:
        await ask("HEAD", path="/a%20b?x=", Range="bytes=0-0")
        for smuggled in ("a\r\nX-Other: b", "a\nb", "a\rb", "a\0b", "a\x7f"):
            with pytest.raises(ValueError, match="line's end"):
                await ask(Range=smuggled)
    (head,) = heads
    assert head.startswith(b"HEAD /a%20b?x= HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nRange: bytes=0-0\r\n" in head
    assert head.lower().count(b"host:") == 1


async def test_an_answer_that_comes_before_all_was_sent_counts_and_the_rest_is_not_sent() -> None:
    closed = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 2\r\n\r\nno")
        came = 0
        while piece := await reader.read(2**16):
            came += len(piece)
        closed.set()
        assert came < len(LONG)

    async with asking(serve) as ask:
        answered = await ask(body=LONG)
        assert (answered.status, answered.body) == (503, b"no")
        await asyncio.wait_for(closed.wait(), 10)


@pytest.mark.parametrize("size", [10, len(LONG)])
async def test_a_connection_that_breaks_is_an_error_of_the_network(size: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)

    async with asking(serve) as ask:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await ask(body=bytes(size))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000), TooLong),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", aiohttp.ClientPayloadError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", aiohttp.ClientResponseError),
    ],
)
async def test_no_half_answer_is_taken_for_one(answer: bytes, error: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head_of(reader)
        writer.write(answer)
        await writer.drain()

    async with asking(serve) as ask:
        with pytest.raises(error):
            await ask()


@pytest.mark.parametrize("size", [10, len(LONG)])
async def test_a_server_that_neither_reads_nor_answers_is_given_up(size: int) -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with asking(serve) as ask:
        with pytest.raises(TimeoutError):
            await ask(body=bytes(size), terms=Terms(0.2, 0.2, 1000))
        over.set()


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    """It lies in a connection that was kept: that one is closed, and the request goes over another."""
    connections, more, sent = 0, asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        number = connections
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        if number == 1:
            await more.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            await writer.drain()
            sent.set()
        await reader.read()

    async with asking(serve) as ask:
        assert (await ask()).body == b"1"
        more.set()
        await sent.wait()
        for _ in range(5):  # the loop reads what has come
            await asyncio.sleep(0)
        assert (await ask()).body == b"2"
