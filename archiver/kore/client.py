"""The platform's recordings API, version 2: what it is asked, and everything that it may answer.

Guarantees: the `auth` header goes to the API host alone and no redirect is followed; an answer is read up to MAX_ANSWER bytes;
every answer ends as an `Answer` or as a KoreError, redacted; a 429 is never slept on here. Connect and stall have timeouts.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from archiver.config import BotSettings
from archiver.errors import ApiDefect, ApiUnreachable, CredentialsRejected, RateLimited
from archiver.kore.token import TokenSigner
from archiver.observe.logs import logger
from archiver.redact import redact
from archiver.transient import retry_transient

log = logger(__name__)

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read: a thousand files need a tenth of it."""

KEPT_ANSWER = 4000
"""Characters of an answer that are kept as evidence."""

CLOCK_TOLERANCE = 60.0
"""Seconds that our clock may differ from the platform's before a refused token is put down to it."""

CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0
"""An answer that brings nothing for so long is given up."""

# Both messages that the vendor documents, and their kin.
_RATE_LIMIT = re.compile(
    r"rate limit for this api has been reached|exceeded the per-(second|minute|hour|day) rate limit", re.IGNORECASE
)


@dataclass(frozen=True)
class RemoteFile:
    """One entry of an answer. `url` is signed: it is a secret, requested byte for byte, and never shown."""

    ordinal: int
    name: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What the platform said of a session. `raw` is the body, redacted and shortened."""

    status: str
    files: tuple[RemoteFile, ...]
    raw: str
    http_status: int


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
    """One call, as it goes out but for its token."""

    url: URL
    method: str = "GET"
    json: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class KoreClient:
    """Asks for one bot. Needs a session of its own, whose headers and cookies nobody else shares."""

    def __init__(
        self, bot: BotSettings, http: aiohttp.ClientSession, *, max_files: int, on_retry: Callable[[Exception, float], None]
    ) -> None:
        self.bot = bot
        self.signer = TokenSigner(bot)
        self._http = http
        self._max_files = max_files
        self._exchange = retry_transient(ApiUnreachable, on_retry=on_retry)(self._exchange_once)

    async def recordings(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        draw: Callable[[], Awaitable[None]],
        on_answer: Callable[[Asked], None],
        drawn: bool = True,
    ) -> Answer:
        """Ask for a session's recordings. `draw` is awaited before every HTTP call, but for the first where it was `drawn`
        already; `on_answer` is told of each. Raises ApiUnreachable, ApiDefect, RateLimited, CredentialsRejected.
        """
        url = f"{self.bot.host}/api/public/bot/{quote(self.bot.bot_id, safe='')}/v2/recordings"
        url += f"?sessionId={quote(session_id, safe='')}"
        if user_id:
            url += f"&userId={quote(user_id, safe='')}"
        paid = [drawn]

        async def pay() -> None:
            if not paid[0]:
                await draw()
            paid[0] = False

        http_status, body = await self._authenticated(_Request(URL(url, encoded=True)), pay, on_answer)
        return self._understand(http_status, body)

    async def listing(
        self,
        path: str,
        *,
        json: Mapping[str, Any],
        headers: Mapping[str, str],
        scope: str,
        draw: Callable[[], Awaitable[None]],
    ) -> dict[str, Any]:
        """POST `json` to one of the platform's listings; its answer, an object. `draw` is awaited before every HTTP call. Raises
        ApiUnreachable, ApiDefect, RateLimited, CredentialsRejected, whose hint names `scope`.
        """
        request = _Request(URL(f"{self.bot.host}{path}", encoded=True), "POST", json, headers)
        try:
            http_status, body = await self._authenticated(request, draw, lambda _: None)
        except CredentialsRejected as error:
            error.hint = f"give the app the scope '{scope}', and check client_id, client_secret and algorithm"
            raise
        return _object(http_status, body)

    async def _authenticated(
        self, request: _Request, pay: Callable[[], Awaitable[None]], on_answer: Callable[[Asked], None]
    ) -> tuple[int, bytes]:
        """The answer to a request, signed afresh and asked once more where its token is refused. Raises CredentialsRejected where
        that one is refused, too.
        """
        asked: list[Asked] = []

        def tell(exchange: Asked) -> None:
            asked.append(exchange)
            on_answer(exchange)

        signed_by = self.signer.clock_offset
        http_status, body = await self._exchange(request, self.signer.token, pay, tell)
        if http_status in (401, 403):
            self.signer.reread_key()
            ahead = _ahead(asked[-1].date)
            wrong = abs(ahead - signed_by) > CLOCK_TOLERANCE
            told = abs(ahead - self.signer.clock_offset) <= CLOCK_TOLERANCE
            self.signer.clock_offset = ahead
            http_status, body = await self._exchange(request, self.signer.renew, pay, tell)
            if http_status in (401, 403):
                raise CredentialsRejected(
                    f"the platform refuses the credentials of {self.bot.name} (HTTP {http_status})",
                    http_status=http_status,
                    answer=_kept(body),
                    **({"enforces": "JWE"} if _demands_encryption(body) else {}),
                    **_skew(asked[-1].date),
                )
            if not wrong:
                self.signer.single_use = True
            elif ahead and not told:
                # One machine whose clock is wrong must not hold the bot for all the others.
                log.warning("clock_differs", bot=self.bot.name, seconds=round(ahead), hint="set this machine's clock (NTP)")
        return http_status, body

    async def _exchange_once(
        self, request: _Request, token: Callable[[], str], pay: Callable[[], Awaitable[None]], on_answer: Callable[[Asked], None]
    ) -> tuple[int, bytes]:
        auth = token()
        await pay()
        started = time.perf_counter()
        try:
            async with self._http.request(
                request.method,
                request.url,
                json=request.json,
                headers={**request.headers, "auth": auth, "Content-Type": "application/json", "Accept": "application/json"},
                allow_redirects=False,
            ) as response:
                body = await response.content.read(MAX_ANSWER + 1)
                while len(body) <= MAX_ANSWER and (more := await response.content.read(MAX_ANSWER + 1 - len(body))):
                    body += more
                status = response.status
                date = _date(response.headers.get("Date"))
                retry_after = _retry_after(response.headers.get("Retry-After"), date)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = redact(str(error) or type(error).__name__)
            on_answer(Asked(None, None, text))
            raise ApiUnreachable(f"no answer from {self.bot.host}: {text}", error=type(error).__name__) from None
        asked = Asked(status, _status_of(body), _kept(body), date)
        on_answer(asked)
        log.debug(
            "api_answered",
            url=str(request.url),
            http_status=status,
            status=asked.status,
            answer=asked.raw if request.json is None else "(a listing: it may hold personal data)",
            milliseconds=round((time.perf_counter() - started) * 1000),
        )
        text = body[:MAX_ANSWER].decode("utf-8", "replace")
        if status == 429 or (status >= 400 and _RATE_LIMIT.search(text)):
            raise RateLimited(f"rate limit of {self.bot.name} reached", retry_after=retry_after, answer=_kept(body))
        if status >= 500:
            raise ApiUnreachable(
                f"{self.bot.host} answered {status}", reason=f"api_http_{status}", http_status=status, answer=_kept(body)
            )
        return status, body

    def _understand(self, http_status: int, body: bytes) -> Answer:
        facts = _facts(http_status, body)
        data = _object(http_status, body)
        status = data.get("status")
        if not isinstance(status, str):
            raise ApiDefect("the answer has no status", **facts)
        if status != "success":
            return Answer(status[:200], (), _kept(body), http_status)
        entries = data.get("recording")
        if not isinstance(entries, list):
            raise ApiDefect("a success without its list of recordings", **facts)
        if not entries:
            raise ApiDefect("a success with an empty list of recordings", reason="api_empty_success", **facts)
        if len(entries) > self._max_files:
            raise ApiDefect(
                f"{len(entries)} files in one session, more than worker.max_files_per_session = {self._max_files}",
                reason="too_many_files",
                hint="raise worker.max_files_per_session if that is right, then `archiver retry`",
                files=len(entries),
                **facts,
            )
        files = []
        for ordinal, entry in enumerate(entries, 1):
            name = entry.get("fileName") if isinstance(entry, dict) else None
            url = entry.get("fileUrl") if isinstance(entry, dict) else None
            if not isinstance(name, str | None) or not isinstance(url, str) or not url:
                raise ApiDefect(f"entry {ordinal} of the recordings has no file name and URL", **facts)
            files.append(RemoteFile(ordinal, name or "", url))
        return Answer(status, tuple(files), _kept(body), http_status)


def _facts(http_status: int, body: bytes) -> dict[str, Any]:
    return {"http_status": http_status, "answer": _kept(body)}


def _object(http_status: int, body: bytes) -> dict[str, Any]:
    """The JSON object that a good answer is. Raises ApiDefect."""
    facts = _facts(http_status, body)
    if not 200 <= http_status < 300:
        raise ApiDefect(f"the platform answered HTTP {http_status}", reason=f"api_http_{http_status}", **facts)
    if len(body) > MAX_ANSWER:
        raise ApiDefect(f"an answer of more than {MAX_ANSWER} bytes", **facts)
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise ApiDefect("the answer is not JSON", **facts) from None
    if not isinstance(data, dict):
        raise ApiDefect(f"the answer is a JSON {type(data).__name__}, not an object", **facts)
    return data


def _demands_encryption(body: bytes) -> bool:
    """Whether a refusal says that the app enforces encrypted tokens (JWE)."""
    return re.search(rb"\bjwe\b|encrypted|encryption", body, re.IGNORECASE) is not None


def _kept(body: bytes) -> str:
    """The answer as evidence: signed queries cut out, bounded."""
    text = redact(body[: KEPT_ANSWER * 4].decode("utf-8", "replace"))
    return text if len(text) <= KEPT_ANSWER else text[:KEPT_ANSWER] + "..."


def _status_of(body: bytes) -> str | None:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    status = data.get("status") if isinstance(data, dict) else None
    return status[:200] if isinstance(status, str) else None


def _ahead(theirs: datetime | None) -> float:
    """Seconds that the platform's clock is ahead of ours, if that is more than a token bears; else 0."""
    seconds = (theirs - datetime.now(UTC)).total_seconds() if theirs is not None else 0.0
    return seconds if abs(seconds) > CLOCK_TOLERANCE else 0.0


def _skew(theirs: datetime | None) -> dict[str, Any]:
    """What to say when a token may have been refused because our clock is wrong."""
    seconds = abs(_ahead(theirs))
    if not seconds:
        return {}
    clock = f"this machine's clock differs from the platform's by {seconds:.0f} s"
    hint = f"{clock}, which alone may be why: set it (NTP); else {CredentialsRejected.hint}"
    return {"hint": hint, "clock_differs_seconds": round(seconds)}


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


def api_session(*, stall: float = STALL_SECONDS) -> aiohttp.ClientSession:
    """A session for the API: no cookies, no proxies from the environment, TLS verified."""
    http = aiohttp.ClientSession(
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=stall),
    )
    # aiohttp repeats a GET by itself when the connection breaks: that would be a call that no budget knows of.
    http._retry_connection = False
    return http
