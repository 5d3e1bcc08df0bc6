"""HTTP exchanges with the platform's API: one call each, signed, paid for, bounded, and noted.

Guarantees: the `auth` header goes to the API host alone and no redirect is followed; an answer is read up to MAX_ANSWER bytes,
and only as it is, never unpacked; a 429 is never slept on here. Connect, stall and the whole have timeouts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
from yarl import URL

from archiver.config import BotSettings, TransferSettings
from archiver.errors import ApiDefect, ApiUnreachable, ArchiverError, CredentialsRejected, RateLimited
from archiver.kore import answers, clock
from archiver.kore.inline import Inline, Scanner, inline_recordings
from archiver.kore.token import TokenSigner
from archiver.observe.logs import is_debugging, logger
from archiver.observe.redact import redact
from archiver.runtime.body_reader import BodyReader, is_chunked
from archiver.runtime.network import DIRECT, Network, encodings_of, hint_of, reason_of, unreadable

log = logger(__name__)

MAX_ANSWER = answers.MAX_ANSWER

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
"""An answer that brings nothing for so long is given up."""

CALL_STALLS = 5
"""A whole call may take so many times `transfer.stall_timeout`, but for the recordings inside its answer: a long one takes its
time, and is held to `transfer.min_rate`, as one from a media host is.
"""

THEN_RESUME = "then SIGHUP to the workers if their configuration changed, and `archiver resume --bot NAME`"
"""What follows whatever mends refused credentials."""

Pay = Callable[[], Awaitable[None]]
"""Awaited before each call: draws it from the budget."""


def first_paid(pay: Pay) -> Pay:
    """`pay`, but for the first call, which was paid for already."""
    paid = True

    async def rest() -> None:
        nonlocal paid
        if not paid:
            await pay()
        paid = False

    return rest


@dataclass(frozen=True)
class Asked:
    """For the history: one HTTP exchange, whatever came of it."""

    http_status: int | None
    status: str | None
    raw: str
    date: datetime | None = None
    """The API host's clock, by its Date header."""


Note = Callable[[Asked], None]


@dataclass(frozen=True)
class Request:
    """One call, as it goes out but for its token. So many recordings at most may lie `inline` in its answer; 0: it has none."""

    url: URL
    scope: str
    method: str = "GET"
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    inline: int = 0


@dataclass
class _Exchanges:
    """Notes the exchanges of one request. `signed_by`: the clock's offset that its first token was signed with."""

    note: Note
    signed_by: float
    date: datetime | None = None
    """The API host's clock in the last of them."""

    def __call__(self, asked: Asked) -> None:
        self.date = asked.date
        self.note(asked)


@dataclass(frozen=True)
class _Renewal:
    """A token that was signed afresh: by so many seconds ahead of our clock, which was wrong for the one before; whether that was
    known.
    """

    ahead: float
    wrong: bool
    known: bool


class Exchange:
    """Exchanges of one bot. Needs a session of its own, whose headers and cookies nobody else shares."""

    def __init__(self, bot: BotSettings, http: aiohttp.ClientSession, terms: TransferSettings, signer: TokenSigner) -> None:
        self._bot = bot
        self._http = http
        self._terms = terms
        self._signer = signer
        self.on_call: Callable[[], None] = lambda: None  # for each call that goes out
        self._patience = CALL_STALLS * terms.stall_timeout.total_seconds()

    def signed_by(self, signer: TokenSigner) -> Exchange:
        """The same, with the tokens of another signer."""
        return Exchange(self._bot, self._http, self._terms, signer)

    async def whole(self, request: Request, pay: Pay, note: Note) -> answers.Reply:
        """The answer to a request, read to its end. Signs and raises as `authenticated` does."""
        exchanges = _Exchanges(note, self._signer.clock_offset)
        reply = await self._call(request, self._signer.token, pay, exchanges)
        if reply.http_status in (401, 403):
            renewal = self._renew(exchanges)
            reply = await self._call(request, self._signer.renew, pay, exchanges)
            self._check_renewed(request, reply, renewal, exchanges)
        return reply

    @asynccontextmanager
    async def authenticated(self, request: Request, pay: Pay, note: Note) -> AsyncIterator[answers.Reply]:
        """The answer to a request, signed afresh and asked once more where its token is refused. Raises CredentialsRejected where
        that one is refused, too; ApiUnreachable, ApiDefect, RateLimited.
        """
        if not request.inline:
            yield await self.whole(request, pay, note)
            return
        exchanges = _Exchanges(note, self._signer.clock_offset)
        async with self._exchange(request, self._signer.token, pay, exchanges) as reply:
            if reply.http_status not in (401, 403):
                yield reply
                return
        renewal = self._renew(exchanges)
        async with self._exchange(request, self._signer.renew, pay, exchanges) as reply:
            self._check_renewed(request, reply, renewal, exchanges)
            yield reply

    def _renew(self, exchanges: _Exchanges) -> _Renewal:
        """Sign afresh from now on: the last token was refused."""
        signer = self._signer
        signer.reread_key()
        ahead = self._offset_by(exchanges.date)
        wrong = abs(ahead - exchanges.signed_by) > clock.TOLERANCE
        known = abs(ahead - signer.clock_offset) <= clock.TOLERANCE
        signer.clock_offset = ahead
        return _Renewal(ahead, wrong, known)

    def _check_renewed(self, request: Request, reply: answers.Reply, renewal: _Renewal, exchanges: _Exchanges) -> None:
        """What the answer to the second token says of the first. Raises CredentialsRejected where that one is refused, too."""
        if reply.http_status in (401, 403):
            raise self._rejected(request.scope, reply, exchanges.date)
        if not renewal.wrong:
            self._signer.single_use = True
        elif renewal.ahead and not renewal.known:
            # One machine whose clock is wrong must not hold the bot for all the others.
            seconds = round(renewal.ahead)
            log.warning("clock_skew_found", bot=self._bot.name, seconds=seconds, hint="set this machine's clock (NTP)")

    def _rejected(self, scope: str, reply: answers.Reply, date: datetime | None) -> CredentialsRejected:
        """A refusal whose hint names its cause, as far as the platform's message tells it."""
        name, message = self._bot.name, answers.first_message(reply.body)
        key = "private_key_file" if self._bot.algorithm.startswith("RS") else "client_secret"
        token = f"bots.{name}.client_id, {key} and algorithm"
        scopes = f"give the app the scope '{scope}', and publish the app after choosing its scopes: they count from then on"
        encrypted = answers.demands_encryption(reply)
        if encrypted:
            hint = "the app enforces JWE (encrypted tokens), which is not supported yet: switch that off in the app's settings"
        elif answers.SCOPE_REFUSED.fullmatch(message):
            hint = scopes
        elif answers.APP_REFUSED.fullmatch(message):
            hint = f"check bots.{name}.bot_id: it must be of the app that bots.{name}.client_id belongs to"
        elif answers.TOKEN_REFUSED.fullmatch(message):
            hint = f"the token does not verify: check {token}"
        else:
            hint = f"check {token} and bot_id; {scopes}"
        clock_hint, facts = clock.skew_hint(date)
        return CredentialsRejected(
            f"the platform refuses the credentials of {name} (HTTP {reply.http_status}{answers.with_colon(message)})",
            hint="; else ".join(filter(None, (clock_hint, f"{hint}; {THEN_RESUME}"))),
            http_status=reply.http_status,
            said=message,
            answer=reply.evidence,
            **({"enforces": "JWE"} if encrypted else {}),
            **facts,
        )

    def _offset_by(self, theirs: datetime | None) -> float:
        """What tokens are to be signed by, after one was refused. A clock that is too far off is not followed."""
        ahead = clock.ahead_of_ours(theirs)
        if clock.is_credible(ahead):
            return min(max(ahead, -clock.MAX_OFFSET), clock.MAX_OFFSET)
        log.warning("clock_skew_ignored", bot=self._bot.name, seconds=round(ahead), hint=clock.TOO_FAR_OFF)
        return self._signer.clock_offset

    async def _call(self, request: Request, token: Callable[[], str], pay: Pay, note: Note) -> answers.Reply:
        """One call, read to its end."""
        auth = token()
        await pay()
        started = time.perf_counter()
        reply = answers.Reply()
        patience = asyncio.timeout(self._patience)
        try:
            async with patience, self._sent(request, auth) as response:
                self._read_head(response, reply)
                reader = BodyReader(self._terms.stall_timeout.total_seconds(), 0)
                reader.framed = is_chunked(response)
                held = bytearray()
                while len(held) <= MAX_ANSWER and (piece := await reader.read(response.content)):
                    held += piece
                reply.body = bytes(held[: MAX_ANSWER + 1])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._broken_off(error, patience, note) from None
        except ArchiverError as error:
            note(Asked(reply.http_status, None, error.message))
            raise
        self._conclude(request, reply, started, note)
        return reply

    def _sent(self, request: Request, auth: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        self.on_call()
        return self._http.request(
            request.method,
            request.url,
            json=request.json,
            headers={**request.headers, "auth": auth, "Content-Type": "application/json", "Accept": "application/json"},
            allow_redirects=False,
        )

    def _read_head(self, response: aiohttp.ClientResponse, reply: answers.Reply) -> None:
        reply.http_status = response.status
        reply.date = clock.parse_date(response.headers.get("Date"))
        reply.retry_after = clock.retry_after(response.headers.get("Retry-After"), reply.date)
        if reply.ok:
            _check_encoding(response)

    def _broken_off(self, error: Exception, patience: asyncio.Timeout, note: Note) -> ApiUnreachable:
        none = TimeoutError(f"none that was whole within {self._patience:g} s")
        broken = self._broken(none if patience.expired() else error)
        self._signer.discard()
        note(Asked(None, None, broken.message))
        return broken

    @asynccontextmanager
    async def _exchange(self, request: Request, token: Callable[[], str], pay: Pay, note: Note) -> AsyncIterator[answers.Reply]:
        """One call whose answer may hold recordings. What is raised while they are taken from it ends the call, and is noted."""
        auth = token()
        await pay()
        started = time.perf_counter()
        reply = answers.Reply()
        scanner = Scanner(self._terms.max_inline)
        concluded = False

        def conclude() -> None:
            nonlocal concluded
            concluded = True
            self._conclude(request, reply, started, note)

        patience = asyncio.timeout(self._patience)
        try:
            async with patience, self._sent(request, auth) as response:
                self._read_head(response, reply)
                pieces = self._pieces(response, reader := BodyReader(self._terms.stall_timeout.total_seconds(), 0))
                if reply.ok:
                    async with aclosing(self._inline(pieces, scanner, reader, patience, request.inline)) as recordings:
                        reply.recordings = _then(recordings, scanner, reply, conclude)
                        yield reply
                    return
                held = bytearray()
                async for piece in pieces:
                    held += piece
                    if len(held) > MAX_ANSWER:
                        break
                reply.body = bytes(held[: MAX_ANSWER + 1])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if concluded:
                raise
            raise self._broken_off(error, patience, note) from None
        except ArchiverError as error:
            if not concluded:
                # Recordings came with the answer, and it ended there: the call was made all the same.
                if scanner.skeleton and isinstance(error, ApiDefect):
                    evidence = answers.as_evidence(bytes(scanner.skeleton))
                    error.facts |= {"http_status": reply.http_status, "answer": evidence}
                broke = isinstance(error, ApiUnreachable)
                if broke:
                    self._signer.discard()
                note(Asked(None if broke else reply.http_status, None, error.message))
            raise
        conclude()
        yield reply

    def _conclude(self, request: Request, reply: answers.Reply, started: float, note: Note) -> None:
        """The answer is whole: note it. Raises RateLimited, and ApiUnreachable for a 5xx."""
        status, evidence = reply.http_status, reply.evidence
        asked = Asked(status, answers.status_of(reply), evidence, reply.date)
        note(asked)
        if is_debugging():
            log.debug(
                "api_answered",
                url=str(request.url),
                http_status=status,
                status=asked.status,
                answer=asked.raw if request.json is None else "(a listing: it may hold personal data)",
                milliseconds=round((time.perf_counter() - started) * 1000),
            )
        if status == 429 or answers.is_rate_limit(reply):
            raise RateLimited(f"rate limit of {self._bot.name} reached", retry_after=reply.retry_after, answer=evidence)
        if status >= 500:
            self._signer.discard()
            reason = f"api_http_{status}"
            raise ApiUnreachable(f"{self._bot.host} answered {status}", reason=reason, http_status=status, answer=evidence)

    async def _inline(
        self, pieces: AsyncIterator[bytes], scanner: Scanner, reader: BodyReader, patience: asyncio.Timeout, most: int
    ) -> AsyncGenerator[Inline, None]:
        """The recordings in an answer. `patience` stands still while one of them is taken, which is held to a rate instead."""
        loop = asyncio.get_running_loop()
        async with aclosing(inline_recordings(pieces, scanner, longest=MAX_ANSWER)) as recordings:
            async for recording in recordings:
                if recording.ordinal > most:
                    raise answers.too_many(recording.ordinal, most)
                left = (patience.when() or 0) - loop.time()
                patience.reschedule(None)
                reader.min_rate = self._terms.min_rate or 0
                yield recording
                async for _ in recording:
                    pass
                reader.min_rate = 0
                patience.reschedule(loop.time() + left)
        patience.reschedule(None)  # the answer is whole: to understand it may take its time

    async def _pieces(self, response: aiohttp.ClientResponse, reader: BodyReader) -> AsyncIterator[bytes]:
        try:
            while piece := await reader.read(response.content):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Here already: whoever takes a recording from the answer is to know what it is that broke.
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> ApiUnreachable:
        text, kind = redact(str(error) or type(error).__name__), type(error).__name__
        if unreadable(error):
            message = f"no answer from {self._bot.host} that can be read as HTTP: {text}"
            return ApiUnreachable(message, reason="api_answer_unreadable", error=kind)
        return ApiUnreachable(
            f"no answer from {self._bot.host}: {text}", reason=reason_of(error), hint=hint_of(error), error=kind
        )


async def _then(
    recordings: AsyncIterator[Inline], scanner: Scanner, reply: answers.Reply, conclude: Callable[[], None]
) -> AsyncIterator[Inline]:
    """The recordings; behind the last one the rest of the answer is its body."""
    async for recording in recordings:
        yield recording
    reply.body, reply.inlined = bytes(scanner.skeleton), scanner.placeholders
    conclude()


def _check_encoding(response: aiohttp.ClientResponse) -> None:
    """What is packed may be a thousand times as long unpacked, and nobody asked for it. Raises ApiDefect."""
    if encodings := encodings_of(response.headers):
        raise ApiDefect(
            "the platform encoded its answer, unasked",
            reason="api_encoded",
            hint="a proxy in between? It has to leave answers as they are",
            http_status=response.status,
            encodings=encodings,
        )


def api_session(network: Network = DIRECT, *, stall: float = STALL_SECONDS) -> aiohttp.ClientSession:
    """A session for the API: no cookies, no proxies but that of `network`, TLS verified, nothing unpacked."""
    http = network.session(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall),
        headers={"Accept-Encoding": "identity"},
    )
    # aiohttp repeats a GET by itself when the connection breaks: that would be a call that no budget knows of.
    http._retry_connection = False
    return http
