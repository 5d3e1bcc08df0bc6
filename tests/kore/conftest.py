"""The client against the simulated platform, and a server that says whatever a test has it say, byte for byte."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from archiver.config import BotSettings, TransferSettings
from archiver.kore.answers import Answer
from archiver.kore.client import KoreClient
from archiver.kore.exchange import Asked, Pay, api_session, first_paid
from archiver.kore.inline import Inline
from archiver.simulator.platform import Simulator

SESSION = "65e7133a3242653c58d70001"


def bot_of(simulator: Simulator, **changes: Any) -> BotSettings:
    """A bot with the simulator's credentials."""
    data = {
        "name": "bot",
        "host": simulator.api_url,
        "bot_id": simulator.bot_id,
        "client_id": simulator.client_id,
        "client_secret": simulator.client_secret,
        "media_hosts": ["127.0.0.1"],
    }
    return BotSettings.model_validate(data | changes)


@dataclass
class KoreHarness:
    """Asks for recordings, and counts the draws, the retries and the exchanges that it was told of."""

    client: KoreClient
    draws: int = 0
    asked: list[Asked] = field(default_factory=list)
    retries: list[Exception] = field(default_factory=list)

    async def ask(
        self,
        session_id: str = SESSION,
        *,
        drawn: bool = False,
        draw: Pay | None = None,
        take: Callable[[Inline], Awaitable[None]] | None = None,
        **more: Any,
    ) -> Answer:
        """As the archive does it; `take` is given the recordings in the answer."""
        pay = draw or self._draw
        pay = first_paid(pay) if drawn else pay

        async def once() -> Answer:
            async with self.client.ask(session_id, draw=pay, on_answer=self.asked.append, **more) as asking:
                if take is not None:
                    async for recording in asking.inline():
                        await take(recording)
                return await asking.answer()

        return await self.client.retrying(once)

    async def _draw(self) -> None:
        self.draws += 1


@asynccontextmanager
async def asking(bot: BotSettings, *, max_files: int = 200, stall: float = 30.0, **terms: Any) -> AsyncIterator[KoreHarness]:
    """An KoreHarness for one bot; `terms` are those of the transfer."""
    retries: list[Exception] = []
    async with api_session(stall=stall) as http:
        client = KoreClient(
            bot,
            http,
            max_files=max_files,
            terms=TransferSettings.model_validate(terms),
            on_retry=lambda error, wait: retries.append(error),
        )
        yield KoreHarness(client, retries=retries)


@pytest.fixture
async def kore(simulator: Simulator) -> AsyncIterator[KoreHarness]:
    """One for the simulated platform."""
    async with asking(bot_of(simulator)) as one:
        yield one


@pytest.fixture(scope="session")
def unknown_authority(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """For a server whose certificate nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class RawServer:
    """Answers every request with the bytes that `reply` returns for its head, and closes. Keeps the heads."""

    def __init__(self, reply: Callable[[str], bytes]) -> None:
        self.heads: list[str] = []
        self.url = ""
        self._reply = reply

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            writer.write(self._reply(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away first, which some tests are about
        finally:
            writer.close()

    @property
    def targets(self) -> list[str]:
        """What was asked for, as it came over the wire."""
        return [head.split(" ")[1] for head in self.heads]


@asynccontextmanager
async def raw_server(reply: Callable[[str], bytes], *, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """Such a server on loopback."""
    raw = RawServer(reply)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, ssl=tls)
    raw.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield raw
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def dripping(first: bytes, drip: bytes, *, times: int = 1_000_000, last: bytes = b"") -> AsyncIterator[str]:
    """The URL of a server that answers with `first`, then with `drip` so many times, as long as anybody listens, and `last`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            for _ in range(times):
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.02)  # a slow host is made of waiting
            writer.write(last)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # given up, as it should be
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def http_answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """One HTTP answer; underscores in header names are hyphens."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


SLOW_TEXT = '"token":"%22\\u0022&quot;eyJabcd.s=1234&sig=%3D'
"""What takes long to redact, for its length."""


@asynccontextmanager
async def beating(longest: float) -> AsyncIterator[None]:
    """Asserts that the event loop never stood still for longer than `longest` seconds meanwhile."""
    worst = [0.0]

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            now = time.monotonic()
            worst[0], last = max(worst[0], now - last), now

    heart = asyncio.create_task(beat())
    await asyncio.sleep(0)  # its first beat
    try:
        yield
        await asyncio.sleep(0.02)  # the one that it may have been kept from
    finally:
        heart.cancel()
    assert worst[0] < longest
