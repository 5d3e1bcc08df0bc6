"""The platform's APIs of recordings, versions 1 and 2, of voicemail and of listings, asked for one bot.

Guarantees: every answer ends as an `Answer` or as a KoreError, redacted. See `exchange` for what each call keeps to.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from copy import copy
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import SecretStr
from yarl import URL

from archiver.config import BotSettings, TransferSettings
from archiver.errors import ApiDefect, ApiUnreachable, CredentialsRejected, NoListing
from archiver.kore import answers
from archiver.kore.answers import Answer
from archiver.kore.exchange import THEN_RESUME, Exchange, Note, Pay, Request
from archiver.kore.inline import Inline
from archiver.kore.token import TokenSigner
from archiver.runtime.retry import retry_transient

T = TypeVar("T")

LONG_ANSWER = 32 * 1024
"""Bytes; what is longer is understood beside the event loop."""

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

NO_LISTING_HINT = (
    "if payload encryption is switched on for the app (a switch of its JWT app), listings come encrypted, unsupported: "
    "switch it off. Else try again; if it stays so, the platform has changed its listing: tell the archiver's developers"
)


class Asking:
    """A session that was asked for. The recordings that lie in the answer itself (version 1) come first, one after another, as
    they arrive; then there is the answer.
    """

    def __init__(self, kind: str, reply: answers.Reply, max_files: int) -> None:
        self._kind = kind
        self._reply = reply
        self._max_files = max_files

    def inline(self) -> AsyncIterator[Inline]:
        """The recordings in the answer; what is left unread of one is read past. Raises ApiUnreachable where the connection
        breaks, ApiDefect, RateLimited.
        """
        return self._reply.recordings

    async def answer(self) -> Answer:
        """What the platform said, its recordings read past. Raises what `inline` does."""
        async for _ in self._reply.recordings:
            pass
        # Of each file the name is redacted: a long answer may hold many, each made to take its time.
        if len(self._reply.body) < LONG_ANSWER:
            return answers.understand(self._kind, self._reply, self._max_files)
        return await asyncio.to_thread(answers.understand, self._kind, self._reply, self._max_files)


async def _run(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What `retrying` repeats: a function of the module, so that its decorator is made once for each client."""
    return await ask()


class KoreClient:
    """Asks for one bot. Needs an HTTP session of its own, whose headers and cookies nobody else shares."""

    def __init__(
        self,
        bot: BotSettings,
        http: aiohttp.ClientSession,
        *,
        max_files: int,
        terms: TransferSettings | None = None,
        on_retry: Callable[[Exception, float], None],
        on_call: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_call` is called for each call that goes out."""
        self.bot = bot
        self.signer = TokenSigner(bot)
        self._max_files = max_files
        self._exchange = Exchange(bot, http, terms or TransferSettings(), self.signer)
        self._exchange.on_call = on_call
        self._paths_v1: tuple[str, ...] = _PATHS_V1
        self._known_until = float("-inf")  # by the monotonic clock
        self._retrying = retry_transient(ApiUnreachable, on_retry=on_retry)(_run)

    async def retrying(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Do what asks, and again where the connection breaks: three tries in ten seconds, at most."""
        answer: T = await self._retrying(ask)
        return answer

    def answers_inline(self, kind: str) -> bool:
        """Whether recordings may lie in the answers themselves: then `ask`, else `answer`."""
        return self.bot.api == "v1" and kind != "voicemail"

    async def answer(self, session_id: str, *, kind: str, user_id: str | None, draw: Pay, on_answer: Note) -> Answer:
        """Ask once, as `ask` does, where no recording can lie in the answer."""
        [request] = self._requests(self.bot.bot_id, session_id, kind, user_id)
        answer = await Asking(kind, await self._exchange.whole(request, draw, on_answer), self._max_files).answer()
        self._known_until = time.monotonic() + KNOWN_SECONDS
        return answer

    @asynccontextmanager
    async def ask(
        self, session_id: str, *, kind: str = "recording", user_id: str | None = None, draw: Pay, on_answer: Note
    ) -> AsyncIterator[Asking]:
        """Ask once for a session's recordings, or with `kind` "voicemail" for that. `draw` is awaited before every HTTP call, and
        `on_answer` is given each exchange. Raises ApiUnreachable, for which it is worth to ask again at once (see `retrying`),
        ApiDefect, RateLimited, CredentialsRejected. What is raised inside ends the call.
        """
        async with self._ask(self.bot.bot_id, session_id, kind, user_id, draw, on_answer) as asking:
            yield asking
        self._known_until = time.monotonic() + KNOWN_SECONDS

    @asynccontextmanager
    async def _ask(
        self, bot_id: str, session_id: str, kind: str, user_id: str | None, draw: Pay, on_answer: Note
    ) -> AsyncIterator[Asking]:
        paths = self._paths_v1
        requests = self._requests(bot_id, session_id, kind, user_id)
        for place, request in enumerate(requests):
            async with self._exchange.authenticated(request, draw, on_answer) as reply:
                if reply.http_status == 404 and request is not requests[-1]:
                    continue
                yield Asking(kind, reply, self._max_files)
            if request.inline:
                self._paths_v1 = (paths[place],)  # only now: not by a page that some gateway answers once
            return

    def _requests(self, bot_id: str, session_id: str, kind: str, user_id: str | None) -> list[Request]:
        """The one that is to be made, or those that are tried in turn."""
        query = f"?sessionId={quote(session_id, safe='')}" + (f"&userId={quote(user_id, safe='')}" if user_id else "")
        paths: tuple[str, ...] = (_PATH_V2,)
        inline = 0
        if kind == "voicemail":
            paths = (_PATH_VOICEMAIL,)
            query += "&transcription=true"
        elif self.answers_inline(kind):
            paths, inline = self._paths_v1, self._max_files
        host, bot = self.bot.host, quote(bot_id, safe="")
        return [Request(URL(f"{host}{path.format(bot)}{query}", encoded=True), SCOPES[kind], inline=inline) for path in paths]

    async def probe(
        self,
        *,
        kind: str = "recording",
        draw: Pay,
        on_answer: Note = lambda _: None,
    ) -> tuple[int, str]:
        """Ask for a session that the platform cannot have: it changes nothing, and concerns no session. Returns the HTTP status
        and the platform's own, if any, where it lets us in. Raises as `ask` does; CredentialsRejected also for a 404 that
        a bot which isn't there gets word for word, if ours is not known to be there.
        """
        http_status, status, said = await self._probe(self.bot.bot_id, kind, draw, on_answer)
        known = time.monotonic() < self._known_until
        if http_status == 404 and not known and (http_status, status, said) == await self._unknown_bot(kind, draw, on_answer):
            raise CredentialsRejected(
                f"the platform knows no bot {self.bot.bot_id} of {self.bot.name} (HTTP 404{answers.with_colon(said)})",
                hint=f"check bots.{self.bot.name}.bot_id (App Settings shows it) and bots.{self.bot.name}.host; {THEN_RESUME}",
                http_status=404,
                said=said,
            )
        return http_status, status

    async def knows_app(self, *, draw: Pay) -> bool | None:
        """Whether the platform knows the app of `client_id`, though it refuses it: a token that names the app and is signed with
        a secret of nobody is then refused for its signature. False: not as far as it says; None: it says nothing of the kind, or
        the app has no secret. Raises ApiUnreachable, RateLimited.
        """
        if self.bot.algorithm.startswith("RS"):
            return None
        nobodys = {"client_secret": SecretStr(secrets.token_urlsafe(48)), "client_secret_file": None}
        stranger = copy(self)
        stranger.signer = TokenSigner(self.bot.model_copy(update=nobodys), clock_offset=self.signer.clock_offset)
        stranger._exchange = self._exchange.signed_by(stranger.signer)
        try:
            await stranger._probe(self.bot.bot_id, "recording", draw, lambda _: None)
        except CredentialsRejected as error:
            said = str(error.facts.get("said", ""))
            if answers.TOKEN_REFUSED.fullmatch(said):
                return True
            return False if answers.APP_REFUSED.fullmatch(said) else None
        except ApiDefect:
            pass
        return None

    async def _unknown_bot(self, kind: str, draw: Pay, on_answer: Note) -> tuple[int, str, str] | None:
        """What the platform says of a bot that isn't there; None: it refuses that one otherwise, and so knows ours."""
        try:
            return await self._probe(UNKNOWN_BOT, kind, draw, on_answer)
        except (CredentialsRejected, ApiDefect):
            return None

    async def _probe(self, bot_id: str, kind: str, draw: Pay, on_answer: Note) -> tuple[int, str, str]:
        async def ask() -> Answer:
            async with self._ask(bot_id, PROBE_SESSION, kind, None, draw, on_answer) as asking:
                return await asking.answer()

        try:
            answer = await self.retrying(ask)
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
        draw: Pay,
    ) -> dict[str, Any] | list[Any]:
        """POST `json` to one of the platform's listings; its answer. `draw` is awaited before every HTTP call. Raises
        ApiUnreachable, ApiDefect, RateLimited, CredentialsRejected, whose hint names `scope`. No error has a row in it.
        """
        request = Request(URL(f"{self.bot.host}{path}", encoded=True), scope, "POST", json, headers)

        async def ask() -> answers.Reply:
            async with self._exchange.authenticated(request, draw, lambda _: None) as reply:
                return reply

        reply = await self.retrying(ask)
        try:
            data = answers.parsed(reply)
        except ApiDefect as error:
            if reply.ok:
                error.facts.pop("answer", None)
                error.hint = error.hint or NO_LISTING_HINT
            raise
        if not isinstance(data, dict | list):
            raise NoListing(f"a listing that is a JSON {type(data).__name__}", hint=NO_LISTING_HINT)
        return data
