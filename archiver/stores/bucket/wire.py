"""Requests to a bucket's server: sent, repeated while a fault is passing, and refusals told in words of ours. How an URL looks,
how it is signed and what a refusal means differs from one kind of server to another: the heirs of `Wire` say it.

Sent over aiohttp's connections, as everything else here is, since of what an SDK would add little serves an archive: bodies are
held in memory piece by piece and hashed already, a guard must be asked before each try, and redirects must never carry a
signature along.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar
from xml.etree.ElementTree import Element

import aiohttp
from yarl import URL

from archiver.observe.redact import redact
from archiver.runtime.body_reader import BodyReader
from archiver.runtime.network import MAX_HEADER, Network, takes_proxy
from archiver.runtime.retry import retry_transient
from archiver.stores.bucket.exchange import SEND_BYTES, Exchange, Piece, Terms, TooLong
from archiver.stores.bucket.refusals import Passing, Refused, parsed

STALL_SECONDS = 60.0
"""A request is given up when for so long nothing of it could be sent, or nothing of its answer came."""

MIN_RATE = 2**10
"""Bytes a second of an object that a server must bring at least: one that goes on by single bytes never stalls."""

ANSWER_SECONDS = 900.0
"""What an answer that is read whole may take: S3 may put an object of many parts together for minutes, and sends white space
meanwhile.
"""

CONNECT_SECONDS = 15.0

READ_BUFFER = 256 * 1024
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that is read whole: a list of a thousand uploads has a tenth of it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Body:
    """What a request carries. `sha256` and `md5` are digests of all its pieces together, as far as somebody has computed them."""

    pieces: Sequence[Piece] = ()
    length: int = 0
    sha256: bytes = hashlib.sha256().digest()
    md5: bytes = b""

    @classmethod
    def of(cls, data: bytes) -> Body:
        """A small one."""
        return cls([data], len(data), hashlib.sha256(data).digest())

    def with_md5(self) -> Body:
        """The same with its MD5; blocks for 2 ms a megabyte if nobody has computed it."""
        if self.md5:
            return self
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces:
            digest.update(piece)
        return replace(self, md5=digest.digest())


@dataclass(frozen=True)
class Answer:
    """A 2xx."""

    status: int
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
    """As headers have it."""
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


@dataclass(frozen=True, slots=True)
class _Request:
    """One request, whoever sends it. `before` is called when it is about to go out, and may raise."""

    method: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Wire(ABC):
    """The requests of one store. A key here is the bucket's: with the store's prefix."""

    http: aiohttp.ClientSession

    @abstractmethod
    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """The URL of a key, or of the bucket, escaped as signatures want it."""

    @abstractmethod
    async def signed(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> tuple[str, dict[str, str]]:
        """The URL and the headers with what proves who we are. Raises StoreUnavailable without credentials."""

    @abstractmethod
    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused:
        """What an answer that is no 2xx means, the credentials distrusted if it means them."""

    @abstractmethod
    def missing(self, refused: Refused) -> bool:
        """Whether a refusal says that there is no such object, rather than no such bucket."""

    @abstractmethod
    async def head(self, key: str) -> Mapping[str, str] | None:
        """The headers of an object, without its bytes; None if there is none. Raises Refused."""

    def refuses_key(self, key: str) -> str:
        """Why the server does not take this key; empty if it does."""
        return ""

    def keeps(self, key: str, refused: Refused) -> bool:
        """Whether a refused deletion is none of our business: the object stays until a policy lets it go."""
        return False

    def belied(self, answer: Answer) -> Refused | None:
        """What a 2xx means if its body says otherwise."""
        return None

    def undone(self, refused: Refused) -> bool:
        """Whether the server is known to have done nothing when it said so."""
        return 0 < refused.status < 500

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

        request = _Request(method, key, query or {}, headers or {}, body or Body(), before)

        async def once() -> Answer:
            try:
                answer = await self._answer(request)
                if (refused := self.belied(answer)) is not None:
                    raise refused
            except Passing as passing:
                if not self.undone(passing):
                    on_lost()
                raise
            return answer

        return await (_patiently(once) if patient else once())

    @asynccontextmanager
    async def open(self, key: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET whose body is the caller's to read, with aiohttp's errors. Its beginning is repeated like any request. Raises
        Refused.
        """
        response = await _patiently(lambda: self._begin(_Request("GET", key, {}, headers, Body())))
        async with response:
            yield response

    @cached_property
    def _exchange(self) -> Exchange | None:
        """None where aiohttp has to send, as a proxy may be in between."""
        return None if takes_proxy(self.http) else Exchange(self.http, READ_BUFFER, MAX_HEADER)

    async def _answer(self, request: _Request) -> Answer:
        """One try, up to the end of a 2xx. Raises Refused for whatever else comes, Passing if it may be tried again."""
        if self._exchange is None:
            async with await self._begin(request) as response:
                return Answer(response.status, response.headers, await _whole(response))
        url, signed = await self._prepared(request)
        with _faults():
            try:
                terms = Terms(STALL_SECONDS, ANSWER_SECONDS, MAX_ANSWER)
                answered = await self._exchange(request.method, url, signed, request.body.pieces, request.body.length, terms)
            except TooLong:
                raise _too_long(200) from None
        if 200 <= answered.status < 300:
            return Answer(answered.status, answered.headers, answered.body)
        raise self.refusal(answered.status, answered.headers, answered.body)

    async def _prepared(self, request: _Request) -> tuple[str, dict[str, str]]:
        """The URL and the headers of a request that goes out now."""
        url, signed = await self.signed(request.method, self.url(request.key, request.query), request.headers, request.body)
        if request.method in ("PUT", "POST"):
            signed["Content-Length"] = str(request.body.length)
            if request.body.length:
                signed.setdefault("Content-Type", "application/octet-stream")
        if request.before is not None:
            request.before()
        return url, signed

    async def _begin(self, request: _Request) -> aiohttp.ClientResponse:
        """The same up to the head of a 2xx, by aiohttp alone."""
        url, signed = await self._prepared(request)
        with _faults():
            async with asyncio.timeout(STALL_SECONDS) as patience:
                sending = _Sending(request.body, patience)
                response = await self.http.request(
                    request.method,
                    URL(url, encoded=True),
                    headers=signed,
                    data=sending if request.body.length else None,
                    allow_redirects=False,
                )
                sending.answered = True
        if 200 <= response.status < 300:
            return response
        async with response:
            raise self.refusal(response.status, response.headers, await _whole(response))


@contextmanager
def _faults() -> Iterator[None]:
    """Raises Refused for what stops a request on its way."""
    try:
        yield
    except (aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise Refused(0, "TlsFailed", f"no trusted connection: {error}") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Passing(0, type(error).__name__, f"no answer: {_describe(error)}") from None


def _too_long(status: int) -> Refused:
    return Refused(status, "AnswerTooLong", "the answer is too long: is this the right kind of server?")


def _describe(error: Exception) -> str:
    """In aiohttp's words, which may quote the URL, and so a signature in it."""
    return redact(str(error)) or type(error).__name__


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises Passing when it breaks off."""
    body = bytearray()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            async for block in response.content.iter_any():
                body += block
                if len(body) > MAX_ANSWER:
                    raise _too_long(response.status)
    except (aiohttp.ClientError, OSError) as error:
        raise Passing(0, type(error).__name__, f"the answer broke off: {_describe(error)}") from None
    return bytes(body)


def object_reader() -> BodyReader:
    """A reader for the body of an object."""
    return BodyReader(STALL_SECONDS, MIN_RATE)


@asynccontextmanager
async def open_http(network: Network) -> AsyncIterator[aiohttp.ClientSession]:
    """What all requests of a store are sent by."""
    http = network.session(
        # No limit: what is under way at a time is bounded by the memory that it takes.
        {"limit": 0, "ttl_dns_cache": 60},
        read_bufsize=READ_BUFFER,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
        headers={"Accept-Encoding": "identity", "User-Agent": "kore-archiver"},
    )
    # aiohttp repeats a PUT by itself when a kept connection turns out to be closed: no guard would be asked before that.
    http._retry_connection = False
    async with http:
        yield http
