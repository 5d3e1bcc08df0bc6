"""Requests to S3: built, signed, sent, repeated while a fault is passing, and refusals told in words of ours.

Sent by aiohttp, as everything else here is, since of what an SDK would add little serves an archive: bodies are held in memory
piece by piece and hashed already, a guard must be asked before each try, and redirects must never carry a signature along.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlsplit
from xml.etree.ElementTree import Element

import aiohttp
from yarl import URL

from archiver.config import is_loopback
from archiver.stores.s3_refusals import Passing, Refused, parsed
from archiver.stores.s3_signing import Signer, Site
from archiver.transient import retry_transient

STALL_SECONDS = 60.0
"""A request is given up when for so long nothing of it could be sent, or nothing of its answer came."""

CONNECT_SECONDS = 15.0

NOT_DONE = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling", "ThrottlingException"})
"""What a server says before it does anything."""
SEND_BYTES = 128 * 1024
"""What is handed to the socket at a time: what it cannot take at once, the event loop copies."""

READ_BUFFER = 256 * 1024
LONGEST_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that is read whole: a list of a thousand uploads has a tenth of it."""

T = TypeVar("T")

Piece = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Body:
    """What a request carries. `sha256` is the digest of all its pieces together."""

    pieces: Sequence[Piece] = ()
    length: int = 0
    sha256: bytes = hashlib.sha256().digest()

    @classmethod
    def of(cls, data: bytes) -> Body:
        """A small one."""
        return cls([data], len(data), hashlib.sha256(data).digest())

    def md5(self) -> bytes:
        """The digest that an ETag repeats; blocks for 2 ms a megabyte."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces:
            digest.update(piece)
        return digest.digest()


@dataclass(frozen=True)
class Answer:
    """A 2xx."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        """As the server gave it, with its quotes."""
        return self.headers.get("ETag", "")

    def xml(self) -> Element:
        """Its document, without namespaces."""
        return parsed(self.body)


def base64_of(digest: bytes) -> str:
    """As S3's headers have it."""
    return base64.b64encode(digest).decode()


class _Sending:
    """A body's pieces, cut so that none blocks the loop. Puts off `patience` with each that went out, until it is `answered`."""

    def __init__(self, body: Body, patience: asyncio.Timeout) -> None:
        self._cuts = self._cut(body)
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self.answered = False

    @staticmethod
    def _cut(body: Body) -> Iterator[memoryview]:
        for piece in body.pieces:
            for start in range(0, len(piece), SEND_BYTES):
                yield memoryview(piece)[start : start + SEND_BYTES]

    def __aiter__(self) -> _Sending:
        return self

    async def __anext__(self) -> memoryview:
        if not self.answered:  # a server may answer before it has all
            self._patience.reschedule(self._loop.time() + STALL_SECONDS)
        for cut in self._cuts:
            return cut
        raise StopAsyncIteration


@retry_transient(Passing)
async def _patiently(request: Callable[[], Awaitable[T]]) -> T:
    return await request()


@dataclass(frozen=True)
class S3Wire:
    """The requests of one store. A key here is the bucket's: with the store's prefix."""

    http: aiohttp.ClientSession
    signer: Signer
    site: Site
    bucket: str
    path_style: bool

    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """The URL of a key, or of the bucket, escaped as signatures want it. An empty value in `query` is a name alone."""
        at = urlsplit(self.site.endpoint)
        # A wildcard certificate covers one label, and an address has no subdomains.
        in_path = self.path_style or "." in self.bucket or is_loopback(at.hostname or "") or _is_address(at.hostname or "")
        host, path = (at.netloc, f"{at.path}/{self.bucket}") if in_path else (f"{self.bucket}.{at.netloc}", at.path)
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted((query or {}).items()))
        return f"{at.scheme}://{host}{path}/{quote(key, safe='/~')}" + (f"?{asked}" if asked else "")

    async def send(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        before: Callable[[], None] | None = None,
        on_lost: Callable[[], None] = lambda: None,
        patient: bool = True,
    ) -> Answer:
        """One request, repeated, if `patient`, while what stops it is passing. `before` is called just before each try, and may
        raise; `on_lost` whenever one ended without saying whether it was carried out. Raises Refused.
        """

        async def once() -> Answer:
            try:
                response = await self._begin(method, key, query or {}, headers or {}, body or Body(), before)
                async with response:
                    body_of_answer = await _whole(response)
                # What takes long is answered before it is done, and an error then stands in the body of a 200.
                if b"<Error" in body_of_answer.lstrip()[:200]:
                    raise Refused.of(response.status, response.headers, body_of_answer)
            except Passing as error:
                if error.status == 0 or (error.status >= 500 and error.code not in NOT_DONE):
                    on_lost()
                raise
            return Answer(response.headers, body_of_answer)

        return await (_patiently(once) if patient else once())

    @asynccontextmanager
    async def open(self, key: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose body is the caller's to read, with aiohttp's errors. Its beginning is repeated like any request. Raises
        Refused.
        """
        response = await _patiently(lambda: self._begin("GET", key, {}, headers, Body(), None))
        async with response:
            yield response

    async def _begin(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body,
        before: Callable[[], None] | None,
    ) -> aiohttp.ClientResponse:
        """One try, up to the head of a 2xx. Raises Refused for whatever else comes, Passing if it may be tried again."""
        url = self.url(key, query)
        signed = await self.signer.sign(method, url, headers, region=self.site.region, body_sha256=body.sha256.hex())
        if method in ("PUT", "POST"):
            signed["Content-Length"] = str(body.length)
        if before is not None:
            before()
        try:
            async with asyncio.timeout(STALL_SECONDS) as patience:
                sending = _Sending(body, patience)
                response = await self.http.request(
                    method,
                    URL(url, encoded=True),
                    headers=signed,
                    data=sending if body.length else None,
                    allow_redirects=False,
                )
                sending.answered = True
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise Refused(0, "TlsFailed", f"no trusted connection: {error}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Passing(0, type(error).__name__, f"no answer: {_told(error)}") from None
        if 200 <= response.status < 300:
            return response
        async with response:
            refused = Refused.of(response.status, response.headers, await _whole(response))
        if refused.of_credentials:
            self.signer.distrust()
        raise refused


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises Passing when it breaks off."""
    body = bytearray()
    try:
        async for block in response.content.iter_any():
            body += block
            if len(body) > LONGEST_ANSWER:
                raise Refused(response.status, "AnswerTooLong", "the answer is longer than any of S3: is this an S3 server?")
    except (aiohttp.ClientError, OSError) as error:
        raise Passing(0, type(error).__name__, f"the answer broke off: {_told(error)}") from None
    return bytes(body)


@asynccontextmanager
async def open_http() -> AsyncIterator[aiohttp.ClientSession]:
    """What all requests of a store are sent by."""
    http = aiohttp.ClientSession(
        # No limit: what is under way at a time is bounded by the memory that it takes.
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        read_bufsize=READ_BUFFER,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
        headers={"Accept-Encoding": "identity", "User-Agent": "kore-archiver"},
    )
    # aiohttp repeats a PUT by itself when a kept connection turns out to be closed: no guard would be asked before that.
    http._retry_connection = False
    async with http:
        yield http
