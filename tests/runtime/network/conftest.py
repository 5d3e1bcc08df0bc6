"""A network of the test's own: an authority that nobody else trusts, hosts with its certificates, and a proxy that knows them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.system.conftest import Program

API, MEDIA, BUCKET_HOST = "platform.test", "media.test", "s3.test"
"""Names that no name server has, and a proxy alone can make something of."""


@dataclass(frozen=True)
class Authority:
    """`file`: its certificate, as `network.ca_bundle` names one. `server`: TLS for the names above, and for 127.0.0.1."""

    file: Path
    server: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    now, root_key, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test Authority")])

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        begun = x509.CertificateBuilder(root, name, public, x509.random_serial_number(), now, now + timedelta(days=1))
        return begun.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
        )

    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    trusted = builder(root, root_key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    certificate = trusted.add_extension(usage, critical=True).sign(root_key, hashes.SHA256())
    names = [*(x509.DNSName(name) for name in (API, MEDIA, BUCKET_HOST, f"*.{BUCKET_HOST}")), _loopback()]
    leaf = builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, API)]), key.public_key())
    leaf = leaf.add_extension(x509.SubjectAlternativeName(names), critical=False)
    file, chain = folder / "authority.pem", folder / "server.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(certificate.public_bytes(pem))
    chain.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + leaf.sign(root_key, hashes.SHA256()).public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return Authority(file, context)


def _loopback() -> x509.IPAddress:
    import ipaddress

    return x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Both ways, until one end closes."""
    inner_reader, inner_writer = await asyncio.open_connection(host, port)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    try:
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
    finally:
        await _closed(inner_writer)


def front(url: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Hands on what comes to the server at `url`."""
    host, _, port = url.rpartition("/")[2].rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await pipe(reader, writer, host, int(port))

    return serve


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        await writer.wait_closed()


@asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[int]:
    """The port of a server on loopback, or on `host`."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await serve(reader, writer)
        finally:
            await _closed(writer)

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(one(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, host, 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@dataclass
class ForwardProxy:
    """A proxy on loopback. `reaches`: where the names that it knows lead to. `login`: who may use it; empty: everybody."""

    reaches: dict[str, tuple[str, int]] = field(default_factory=dict)
    login: str = ""
    answer: bytes = b""
    """Sent to whatever it is asked, in place of doing it."""
    port: int = 0
    asked: list[str] = field(default_factory=list)
    """The targets of all requests, as they came."""
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, _ = head.split(" ", 2)
        self.asked.append(target)
        self.heads.append(head)
        given = base64.b64encode(self.login.encode()).decode()
        if self.login and f"Proxy-Authorization: Basic {given}\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if self.answer:
            writer.write(self.answer)
            return
        host = target.rpartition(":")[0] if method == "CONNECT" else urlsplit(target).hostname or ""
        if host not in self.reaches:
            writer.write(b"HTTP/1.1 403 Filtered\r\nContent-Length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await pipe(reader, writer, *self.reaches[host])
            return
        replayed = asyncio.StreamReader()
        path = target.partition("://")[2].partition("/")[2]
        replayed.feed_data(
            head.replace(target, f"/{path}", 1).replace("HTTP/1.1\r\n", "HTTP/1.1\r\nVia: 1.1 test\r\n", 1).encode()
        )

        async def rest() -> None:
            while data := await reader.read(65536):
                replayed.feed_data(data)
            replayed.feed_eof()

        feeding = asyncio.create_task(rest())
        try:
            await pipe(replayed, writer, *self.reaches[host])
        finally:
            feeding.cancel()


@asynccontextmanager
async def forward_proxy(tls: ssl.SSLContext | None = None, login: str = "", answer: bytes = b"") -> AsyncIterator[ForwardProxy]:
    proxy = ForwardProxy(login=login, answer=answer)
    async with listening(proxy.serve, tls) as proxy.port:
        yield proxy


@pytest.fixture
async def blank(tmp_path: Path) -> AsyncIterator[Program]:
    """The program without any configuration."""
    program = Program(tmp_path)
    yield program
    await program.close()
