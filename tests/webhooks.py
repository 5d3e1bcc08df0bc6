"""A receiver of messages: a real HTTP server, which verifies signatures by a hand of its own and answers as a test wants."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()

TOLERANCE = 300
"""Seconds that the standard's libraries let a message's clock and the receiver's differ."""

Mode = Literal["accept", "refuse", "silent", "endless", "redirect", "broken", "headers"]


@dataclass(frozen=True)
class Received:
    """A message, as it came, whose signature was right."""

    path: str
    headers: dict[str, str]
    document: dict[str, Any]

    @property
    def attempt(self) -> int:
        return int(self.document["attempt"])

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class WebhookServer:
    """What arrives is in `received`, and is told of at once; `mode` says how it is answered from then on."""

    def __init__(self) -> None:
        self.mode: Mode = "accept"
        self.status = 200
        self.received: list[Received] = []
        self.sent_bytes = 0
        self.port = 0
        self._news = asyncio.Condition()
        self._closing = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def messages(self, count: int, timeout: float = 20) -> list[Received]:
        """So many, as soon as they are there."""
        async with asyncio.timeout(timeout), self._news:
            await self._news.wait_for(lambda: len(self.received) >= count)
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        method, path, _ = head[0].split(" ")
        assert method == "POST"
        verify(headers, body)
        async with self._news:
            self.received.append(Received(path, headers, json.loads(body)))
            self._news.notify_all()
        match self.mode:
            case "accept":
                writer.write(f"HTTP/1.1 {self.status} Fine\r\nContent-Length: 0\r\n\r\n".encode())
            case "refuse":
                writer.write(f"HTTP/1.1 {self.status} <script>\x1b[31m\r\nContent-Length: 0\r\n\r\n".encode())
            case "redirect":
                location = f"http://127.0.0.1:{self.port}/inner"
                writer.write(f"HTTP/1.1 307 Temporary\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())
            case "silent":
                await self._closing.wait()
                return False
            case "broken":
                return False
            case "endless" | "headers":
                head_line = b"HTTP/1.1 200 OK\r\n"
                writer.write(head_line if self.mode == "headers" else head_line + b"Transfer-Encoding: chunked\r\n\r\n")
                chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
                block = b"X-More: " + b"a" * 4000 + b"\r\n" if self.mode == "headers" else chunk
                while not self._closing.is_set():
                    writer.write(block)
                    await writer.drain()
                    self.sent_bytes += len(block)
                return False
        await writer.drain()
        return True

    async def close(self) -> None:
        self._closing.set()
        for task in list(self._handlers):
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)


def verify(headers: dict[str, str], body: bytes, *, key: bytes = KEY, now: float | None = None) -> None:
    """As https://github.com/standard-webhooks/standard-webhooks has it, written from its text alone."""
    message_id, at = headers["webhook-id"], headers["webhook-timestamp"]
    assert "." not in message_id
    assert abs((time.time() if now is None else now) - int(at)) <= TOLERANCE, "too old, or too new"
    signed = b".".join((message_id.encode(), at.encode(), body))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    versions = [each.partition(",") for each in headers["webhook-signature"].split(" ")]
    assert any(version == "v1" and hmac.compare_digest(given, expected) for version, _, given in versions), "wrong signature"


@asynccontextmanager
async def webhook_server() -> AsyncIterator[WebhookServer]:
    """One that listens on a free port of this machine."""
    server = WebhookServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        await server.close()
