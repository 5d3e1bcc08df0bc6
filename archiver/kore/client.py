"""The platform's APIs of recordings, versions 1 and 2, and of voicemail: what they are asked, and all that they may answer.

Guarantees: the `auth` header goes to the API host alone and no redirect is followed; an answer is read up to MAX_ANSWER bytes,
and only as it is, never unpacked; every answer ends as an `Answer` or as a KoreError, redacted; a 429 is never slept on here.
Connect, stall and the whole have timeouts.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from archiver.config import BotSettings, TransferSettings
from archiver.errors import ApiDefect, ApiUnreachable, ArchiverError, CredentialsRejected, NoListing, RateLimited
from archiver.kore import answers
from archiver.kore.inline import Inline, Keep, Scanner, read_inline
from archiver.kore.token import TokenSigner
from archiver.observe.logs import logger
from archiver.observe.redact import redact
from archiver.runtime.network import DIRECT, Network, encodings_of, hint_of, reason_of, unreadable
from archiver.runtime.pace import Pace
from archiver.runtime.retry import retry_transient
from archiver.session import source_name

log = logger(__name__)

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read: a thousand files need a tenth of it."""

LONG_ANSWER = 32 * 1024
"""Bytes; what is longer is understood beside the event loop."""

CLOCK_TOLERANCE = 60.0
"""Seconds that our clock may differ from the platform's before a refused token is put down to it."""

MAX_CLOCK_OFFSET = 3600.0
"""Seconds that tokens follow the platform's clock at most. By one Date of 2099 we would sign what is good for decades."""

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
"""An answer that brings nothing for so long is given up."""

CALL_STALLS = 5
"""A whole call may take so many times `transfer.stall_timeout`, but for the recordings inside its answer: a long one takes its
time, and is held to `transfer.min_rate`, as one from a media host is.
"""

PROBE_SESSION = "archiver-doctor-0"
"""A session ID that no platform has: asking for it changes nothing."""

UNKNOWN_BOT = "st-00000000-0000-0000-0000-000000000000"
"""A bot ID that no platform has: what is said of it is said of every bot that isn't there."""

LET_IN = (400, 404, 412, 422)
"""What a platform may say of a session that it doesn't know, besides its own statuses: whoever hears that was let in, unless it
says the same of a bot that isn't there.
"""

KNOWN_SECONDS = 60.0
"""So long after an answer about a session our bot is known to be there, whatever a 404 may be word for word: some platforms may
look for the session first. Short, since a bot can be removed, and sessions pay for what is taken for theirs.
"""

SCOPES = {"recording": "SmartAssist Recordings", "voicemail": "SmartAssist Voicemail"}
"""What an app must be allowed, by the kind that is asked for."""

# The pages of version 1 disagree: the first one that answers is asked from then on.
_PATHS_V1 = ("/api/1.1/public/bot/{}/recordings", "/api/public/bot/{}/recordings")
_PATH_V2 = "/api/public/bot/{}/v2/recordings"
_PATH_VOICEMAIL = "/api/public/bot/{}/voicemail"

# In the vendor's table, and in its sample.
_VOICEMAIL_KEYS = ("voicemail_recording", "voicemail recording")

THEN_RESUME = "then `archiver resume` (and restart the workers if their configuration changed)"
"""What follows whatever mends refused credentials."""

_TOO_FAR_OFF = (
    "tokens follow the platform's clock by an hour at most; set this machine's clock (NTP), or check what answers at bots.host"
)

_OUR_FAULT = (
    "it calls the request itself invalid, so asking again is in vain: check bots.api and bots.bot_id, and whether the session "
    "lacks the user ID that it was to be enqueued with; then `archiver retry`"
)

NO_LISTING_HINT = (
    "if payload encryption is switched on for the app (a switch of its JWT app), listings come encrypted, unsupported: "
    "switch it off. Else try again; if it stays so, the platform has changed its listing: tell the archiver's developers"
)


@dataclass(frozen=True)
class RemoteFile:
    """One entry of an answer. `url` is signed: it is a secret, requested byte for byte, and never shown. `name` holds none."""

    ordinal: int
    name: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What the platform said of a session. `raw` is the body, redacted and shortened. `listed` counts the files that it named;
    those that lay in the answer itself are not among `files`. `transcriptions`, of a voicemail, is as the answer has it.
    """

    status: str
    files: tuple[RemoteFile, ...]
    raw: str
    http_status: int
    listed: int = 0
    transcriptions: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Asked:
    """For the history: one HTTP exchange, whatever came of it."""

    http_status: int | None
    status: str | None
    raw: str
    date: datetime | None = None
    """The API host's clock, by its Date header."""


@dataclass(frozen=True)
class _Request:
    """One call, as it goes out but for its token. Recordings inside its answer go to `keep`; None: there are none."""

    url: URL
    scope: str
    method: str = "GET"
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: Keep | None = None


@dataclass(frozen=True)
class _Reply:
    """An answer as it came; `inlined` stands in its body in place of the recordings that came with it."""

    http_status: int
    body: bytes
    inlined: list[str] | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.http_status < 300


class KoreClient:
    """Asks for one bot. Needs a session of its own, whose headers and cookies nobody else shares."""

    def __init__(
        self,
        bot: BotSettings,
        http: aiohttp.ClientSession,
        *,
        max_files: int,
        terms: TransferSettings | None = None,
        on_retry: Callable[[Exception, float], None],
    ) -> None:
        self.bot = bot
        self.signer = TokenSigner(bot)
        self._http = http
        self._max_files = max_files
        self._terms = terms or TransferSettings()
        self._paths_v1: tuple[str, ...] = _PATHS_V1
        self._known_until = float("-inf")  # by the monotonic clock
        self._exchange = retry_transient(ApiUnreachable, on_retry=on_retry)(self._exchange_once)

    async def recordings(
        self,
        session_id: str,
        *,
        kind: str = "recording",
        user_id: str | None = None,
        draw: Callable[[], Awaitable[None]],
        on_answer: Callable[[Asked], None],
        drawn: bool = True,
        keep: Keep | None = None,
    ) -> Answer:
        """Ask for a session's recordings, or with `kind` "voicemail" for that. `draw` is awaited before every HTTP call, but for
        the first where it was `drawn` already; `on_answer` is told of each. Raises ApiUnreachable, ApiDefect, RateLimited,
        CredentialsRejected.

        Recordings that lie in the answer itself (version 1) go to `keep`, one after another, as they arrive. When the connection
        breaks and the call is repeated, they come again from the first one on. What `keep` raises ends the call.
        """
        answer = await self._recordings(self.bot.bot_id, session_id, kind, user_id, draw, on_answer, drawn, keep)
        self._known_until = time.monotonic() + KNOWN_SECONDS
        return answer

    async def _recordings(
        self,
        bot_id: str,
        session_id: str,
        kind: str,
        user_id: str | None,
        draw: Callable[[], Awaitable[None]],
        on_answer: Callable[[Asked], None],
        drawn: bool,
        keep: Keep | None,
    ) -> Answer:
        paid = [drawn]

        async def pay() -> None:
            if not paid[0]:
                await draw()
            paid[0] = False

        async def keep_some(recording: Inline) -> None:
            if recording.ordinal > self._max_files:
                raise self._too_many(recording.ordinal)
            if keep is not None:
                await keep(recording)

        inline = kind == "recording" and self.bot.api == "v1"
        query = f"?sessionId={quote(session_id, safe='')}" + (f"&userId={quote(user_id, safe='')}" if user_id else "")

        async def ask(path: str) -> _Reply:
            url = f"{self.bot.host}{path.format(quote(bot_id, safe=''))}{query}"
            request = _Request(URL(url, encoded=True), SCOPES[kind], keep=keep_some if inline else None)
            return await self._authenticated(request, pay, on_answer)

        if kind == "voicemail":
            query += "&transcription=true"
            return await self._understood(kind, await ask(_PATH_VOICEMAIL))
        if not inline:
            return await self._understood(kind, await ask(_PATH_V2))
        path, *other = self._paths_v1
        reply = await ask(path)
        if reply.http_status == 404 and other:
            path = other[0]
            reply = await ask(path)
        answer = await self._understood(kind, reply)
        self._paths_v1 = (path,)  # not by a page that some gateway answers once
        return answer

    async def probe(
        self,
        *,
        kind: str = "recording",
        draw: Callable[[], Awaitable[None]],
        on_answer: Callable[[Asked], None] = lambda _: None,
        drawn: bool = False,
    ) -> tuple[int, str]:
        """Ask for a session that the platform cannot have: it changes nothing, and concerns no session. Returns the HTTP status
        and the platform's own, if any, where it lets us in. Raises as `recordings` does; CredentialsRejected also for a 404 that
        a bot which isn't there gets word for word, if ours is not known to be there.
        """
        http_status, status, said = await self._probe(self.bot.bot_id, kind, draw, on_answer, drawn)
        known = time.monotonic() < self._known_until
        if http_status == 404 and not known and (http_status, status, said) == await self._unknown_bot(kind, draw, on_answer):
            raise CredentialsRejected(
                f"the platform knows no bot {self.bot.bot_id} of {self.bot.name} (HTTP 404{answers.with_colon(said)})",
                hint=f"check bots.{self.bot.name}.bot_id (App Settings shows it) and bots.{self.bot.name}.host; {THEN_RESUME}",
                http_status=404,
                said=said,
            )
        return http_status, status

    async def _unknown_bot(
        self, kind: str, draw: Callable[[], Awaitable[None]], on_answer: Callable[[Asked], None]
    ) -> tuple[int, str, str] | None:
        """What the platform says of a bot that isn't there; None: it refuses that one otherwise, and so knows ours."""
        try:
            return await self._probe(UNKNOWN_BOT, kind, draw, on_answer, drawn=False)
        except (CredentialsRejected, ApiDefect):
            return None

    async def _probe(
        self, bot_id: str, kind: str, draw: Callable[[], Awaitable[None]], on_answer: Callable[[Asked], None], drawn: bool
    ) -> tuple[int, str, str]:
        try:
            answer = await self._recordings(bot_id, PROBE_SESSION, kind, None, draw, on_answer, drawn, None)
        except ApiDefect as error:
            http_status: int = error.facts.get("http_status", 0)
            if http_status in LET_IN or error.reason == "api_empty_success":
                return http_status, "", str(error.facts.get("said", "")).replace(bot_id, "")
            raise
        return answer.http_status, answer.status, ""

    async def listing(
        self,
        path: str,
        *,
        json: Mapping[str, Any],
        headers: Mapping[str, str],
        scope: str,
        draw: Callable[[], Awaitable[None]],
    ) -> dict[str, Any] | list[Any]:
        """POST `json` to one of the platform's listings; its answer. `draw` is awaited before every HTTP call. Raises
        ApiUnreachable, ApiDefect, RateLimited, CredentialsRejected, whose hint names `scope`. No error has a row in it.
        """
        request = _Request(URL(f"{self.bot.host}{path}", encoded=True), scope, "POST", json, headers)
        reply = await self._authenticated(request, draw, lambda _: None)
        try:
            data = _json(reply)
        except ApiDefect as error:
            if reply.ok:
                error.facts.pop("answer", None)
                error.hint = error.hint or NO_LISTING_HINT
            raise
        if not isinstance(data, dict | list):
            raise NoListing(f"a listing that is a JSON {type(data).__name__}", hint=NO_LISTING_HINT)
        return data

    async def _authenticated(
        self, request: _Request, pay: Callable[[], Awaitable[None]], on_answer: Callable[[Asked], None]
    ) -> _Reply:
        """The answer to a request, signed afresh and asked once more where its token is refused. Raises CredentialsRejected where
        that one is refused, too.
        """
        asked: list[Asked] = []

        def tell(exchange: Asked) -> None:
            asked.append(exchange)
            on_answer(exchange)

        signed_by = self.signer.clock_offset
        reply = await self._exchange(request, self.signer.token, pay, tell)
        if reply.http_status in (401, 403):
            self.signer.reread_key()
            ahead = self._offset_by(asked[-1].date)
            wrong = abs(ahead - signed_by) > CLOCK_TOLERANCE
            told = abs(ahead - self.signer.clock_offset) <= CLOCK_TOLERANCE
            self.signer.clock_offset = ahead
            reply = await self._exchange(request, self.signer.renew, pay, tell)
            if reply.http_status in (401, 403):
                raise self._rejected(request.scope, reply, asked[-1].date)
            if not wrong:
                self.signer.single_use = True
            elif ahead and not told:
                # One machine whose clock is wrong must not hold the bot for all the others.
                log.warning("clock_skew_found", bot=self.bot.name, seconds=round(ahead), hint="set this machine's clock (NTP)")
        return reply

    def _rejected(self, scope: str, reply: _Reply, date: datetime | None) -> CredentialsRejected:
        """A refusal whose hint names its cause, as far as the platform's message tells it."""
        name, said = self.bot.name, answers.first_message(reply.body)
        key = "private_key_file" if self.bot.algorithm.startswith("RS") else "client_secret"
        token = f"bots.{name}.client_id, {key} and algorithm"
        scopes = f"give the app the scope '{scope}', and publish the app after choosing its scopes: they count from then on"
        encrypted = answers.demands_encryption(reply.body)
        if encrypted:
            hint = "the app enforces JWE (encrypted tokens), which is not supported yet: switch that off in the app's settings"
        elif answers.SCOPE_REFUSED.fullmatch(said):
            hint = scopes
        elif answers.APP_REFUSED.fullmatch(said):
            hint = f"check bots.{name}.bot_id: it must be of the app that bots.{name}.client_id belongs to"
        elif answers.TOKEN_REFUSED.fullmatch(said):
            hint = f"the token does not verify: check {token}"
        else:
            hint = f"check {token} and bot_id; {scopes}"
        clock, facts = _skew(date)
        return CredentialsRejected(
            f"the platform refuses the credentials of {name} (HTTP {reply.http_status}{answers.with_colon(said)})",
            hint="; else ".join(filter(None, (clock, f"{hint}; {THEN_RESUME}"))),
            http_status=reply.http_status,
            said=said,
            answer=answers.as_evidence(reply.body),
            **({"enforces": "JWE"} if encrypted else {}),
            **facts,
        )

    def _offset_by(self, theirs: datetime | None) -> float:
        """What tokens are to be signed by, after one was refused. A clock that is too far off is not followed."""
        ahead = _ahead(theirs)
        if abs(ahead) <= MAX_CLOCK_OFFSET + CLOCK_TOLERANCE:  # an hour, as of a wrong zone, is never one to the second
            return min(max(ahead, -MAX_CLOCK_OFFSET), MAX_CLOCK_OFFSET)
        log.warning("clock_skew_ignored", bot=self.bot.name, seconds=round(ahead), hint=_TOO_FAR_OFF)
        return self.signer.clock_offset

    async def _exchange_once(
        self,
        request: _Request,
        token: Callable[[], str],
        pay: Callable[[], Awaitable[None]],
        on_answer: Callable[[Asked], None],
    ) -> _Reply:
        auth = token()
        await pay()
        started = time.perf_counter()
        seen: int | None = None
        whole = CALL_STALLS * self._terms.stall_timeout.total_seconds()
        patience = asyncio.timeout(whole)
        try:
            async with (
                patience,
                self._http.request(
                    request.method,
                    request.url,
                    json=request.json,
                    headers={**request.headers, "auth": auth, "Content-Type": "application/json", "Accept": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                seen = response.status
                date = _date(response.headers.get("Date"))
                retry_after = _retry_after(response.headers.get("Retry-After"), date)
                reply = await self._read(response, request.keep, patience)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            broken = self._broken(TimeoutError(f"none that was whole within {whole:g} s") if patience.expired() else error)
            on_answer(Asked(None, None, broken.message))
            raise broken from None
        except ArchiverError as error:
            # Recordings came with the answer, and it ended there: the call was made all the same.
            on_answer(Asked(None if isinstance(error, ApiUnreachable) else seen, None, error.message))
            raise
        status, body = reply.http_status, reply.body
        asked = Asked(status, answers.status_of(body), answers.as_evidence(body), date)
        on_answer(asked)
        log.debug(
            "api_answered",
            url=str(request.url),
            http_status=status,
            status=asked.status,
            answer=asked.raw if request.json is None else "(a listing: it may hold personal data)",
            milliseconds=round((time.perf_counter() - started) * 1000),
        )
        if status == 429 or answers.is_rate_limit(body):
            raise RateLimited(f"rate limit of {self.bot.name} reached", retry_after=retry_after, answer=answers.as_evidence(body))
        if status >= 500:
            raise ApiUnreachable(
                f"{self.bot.host} answered {status}",
                reason=f"api_http_{status}",
                http_status=status,
                answer=answers.as_evidence(body),
            )
        return reply

    async def _read(self, response: aiohttp.ClientResponse, keep: Keep | None, patience: asyncio.Timeout) -> _Reply:
        """The body, up to MAX_ANSWER bytes and one more, what came in it of recordings left out. `patience` stands still while
        one of those is taken.
        """
        pace = Pace(self._terms.stall_timeout.total_seconds(), 0)
        pieces = self._pieces(response, pace)
        if 200 <= response.status < 300:
            _check_encoding(response)
        if keep is None or not 200 <= response.status < 300:
            held = bytearray()
            async for piece in pieces:
                held += piece
                if len(held) > MAX_ANSWER:
                    break
            return _Reply(response.status, bytes(held[: MAX_ANSWER + 1]))
        scanner = Scanner(self._terms.max_inline)
        loop = asyncio.get_running_loop()

        async def take(recording: Inline) -> None:
            left = (patience.when() or 0) - loop.time()
            patience.reschedule(None)
            pace.min_rate = self._terms.min_rate or 0
            await keep(recording)
            async for _ in recording:
                pass
            pace.min_rate = 0
            patience.reschedule(loop.time() + left)

        try:
            body = await read_inline(pieces, scanner, take, longest=MAX_ANSWER)
        except ApiDefect as error:
            error.facts |= {"http_status": response.status, "answer": answers.as_evidence(bytes(scanner.skeleton))}
            raise
        return _Reply(response.status, body, scanner.placeholders)

    async def _pieces(self, response: aiohttp.ClientResponse, pace: Pace) -> AsyncIterator[bytes]:
        try:
            while piece := await pace.read(response.content):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Here already: whoever takes a recording from the answer is to know what it is that broke.
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> ApiUnreachable:
        text, kind = redact(str(error) or type(error).__name__), type(error).__name__
        if unreadable(error):
            message = f"no answer from {self.bot.host} that can be read as HTTP: {text}"
            return ApiUnreachable(message, reason="api_answer_unreadable", error=kind)
        return ApiUnreachable(f"no answer from {self.bot.host}: {text}", reason=reason_of(error), hint=hint_of(error), error=kind)

    async def _understood(self, kind: str, reply: _Reply) -> Answer:
        # Of each file the name is redacted: a long answer may hold many, each made to take its time.
        if len(reply.body) < LONG_ANSWER:
            return self._understand(kind, reply)
        return await asyncio.to_thread(self._understand, kind, reply)

    def _understand(self, kind: str, reply: _Reply) -> Answer:
        http_status, kept = reply.http_status, answers.as_evidence(reply.body)
        facts = _facts(reply)
        data = _object(reply)
        # Version 1 knows no statuses. Should it have one all the same, it means what it means elsewhere.
        status = data.get("status", None if reply.inlined is None else "success")
        if not isinstance(status, str):
            raise ApiDefect("the answer has no status", **facts)
        if status != "success":
            return Answer(redact(status)[:200], (), kept, http_status)
        entries = _entries(kind, data)
        if not isinstance(entries, list):
            raise ApiDefect("a success without its list of recordings", **facts)
        if not entries:
            raise ApiDefect("a success with an empty list of recordings", reason="api_empty_success", **facts)
        if len(entries) > self._max_files:
            raise self._too_many(len(entries), **facts)
        if reply.inlined is not None:
            if entries != reply.inlined:
                raise ApiDefect("not all of the recordings are data URLs", **facts)
            return Answer(status, (), kept, http_status, listed=len(entries))
        files = tuple(_remote_file(ordinal, entry, facts) for ordinal, entry in enumerate(entries, 1))
        transcriptions = data.get("transcriptions") if kind == "voicemail" else None
        return Answer(status, files, kept, http_status, listed=len(files), transcriptions=transcriptions or None)

    def _too_many(self, files: int, **facts: Any) -> ApiDefect:
        return ApiDefect(
            f"{files} files in one session, more than worker.max_files_per_session = {self._max_files}",
            reason="too_many_files",
            hint="raise worker.max_files_per_session if that is right, then `archiver retry`",
            files=files,
            **facts,
        )


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


def _facts(reply: _Reply) -> dict[str, Any]:
    said = {} if reply.ok else {"said": answers.first_message(reply.body)}
    return {"http_status": reply.http_status, **said, "answer": answers.as_evidence(reply.body)}


def _object(reply: _Reply) -> dict[str, Any]:
    """The JSON object that a good answer is. Raises ApiDefect."""
    data = _json(reply)
    if not isinstance(data, dict):
        raise ApiDefect(f"the answer is a JSON {type(data).__name__}, not an object", **_facts(reply))
    return data


def _json(reply: _Reply) -> Any:
    """The JSON that a good answer is. Raises ApiDefect."""
    http_status, facts = reply.http_status, _facts(reply)
    if not reply.ok:
        hint = _OUR_FAULT if http_status == 412 else ""
        message = f"the platform answered HTTP {http_status}{answers.with_colon(facts['said'])}"
        raise ApiDefect(message, reason=f"api_http_{http_status}", hint=hint, **facts)
    if len(reply.body) > MAX_ANSWER:
        raise ApiDefect(f"an answer of more than {MAX_ANSWER} bytes", **facts)
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        raise ApiDefect("the answer is not JSON", **facts) from None


def _remote_file(ordinal: int, entry: Any, facts: dict[str, Any]) -> RemoteFile:
    name = entry.get("fileName") if isinstance(entry, dict) else None
    url = entry.get("fileUrl") if isinstance(entry, dict) else None
    if not isinstance(name, str | None) or not isinstance(url, str) or not url:
        raise ApiDefect(f"entry {ordinal} of the recordings has no file name and URL", **facts)
    return RemoteFile(ordinal, source_name(name or ""), url)


def _entries(kind: str, data: dict[str, Any]) -> Any:
    """What an answer lists, by whichever of its documented names."""
    if kind != "voicemail":
        return data.get("recording")
    lists = [data[key] for key in _VOICEMAIL_KEYS if key in data]
    return next((entries for entries in lists if entries), lists[0] if lists else None)


def _ahead(theirs: datetime | None) -> float:
    """Seconds that the platform's clock is ahead of ours, if that is more than a token bears; else 0."""
    seconds = (theirs - datetime.now(UTC)).total_seconds() if theirs is not None else 0.0
    return seconds if abs(seconds) > CLOCK_TOLERANCE else 0.0


def _skew(theirs: datetime | None) -> tuple[str, dict[str, Any]]:
    """What to say when a token may have been refused because our clock is wrong, and the facts of it."""
    seconds = abs(_ahead(theirs))
    if not seconds:
        return "", {}
    clock = f"this machine's clock differs from the platform's by {seconds:.0f} s"
    facts = {"clock_differs_seconds": round(seconds)}
    if seconds > MAX_CLOCK_OFFSET + CLOCK_TOLERANCE:
        return f"{clock}: {_TOO_FAR_OFF}", facts
    return f"{clock}, which alone may be why: set it (NTP)", facts


def _date(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value) if value else None
    except (ValueError, TypeError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC) if found else None


def _retry_after(value: str | None, now: datetime | None) -> timedelta | None:
    """Seconds, or an HTTP date held against the server's own clock. Bounded to a day; nonsense counts as absent."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}", value.strip()):
        return timedelta(seconds=min(int(value), 86400))
    until = _date(value)
    if until is None:
        return None
    return min(max(until - (now or datetime.now(UTC)), timedelta(0)), timedelta(days=1))


def api_session(network: Network = DIRECT, *, stall: float = STALL_SECONDS) -> aiohttp.ClientSession:
    """A session for the API: no cookies, no proxies but that of `network`, TLS verified, nothing unpacked."""
    http = network.session(
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall),
        headers={"Accept-Encoding": "identity"},
    )
    # aiohttp repeats a GET by itself when the connection breaks: that would be a call that no budget knows of.
    http._retry_connection = False
    return http
