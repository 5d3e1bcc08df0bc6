"""The APIs of recordings and voicemail, and the simulator's own control endpoints at `/_simulator`.

Vendor, with the token in the header `auth`, each with `sessionId` and perhaps `userId` in its query:

    GET /api/public/bot/{botId}/v2/recordings
    GET /api/1.1/public/bot/{botId}/recordings      version 1; also documented without /1.1
    GET /api/public/bot/{botId}/voicemail           with `transcription=true` for what was said

What version 1 answers where there is no recording is made up: the statuses of version 2. Its `recording` comes without any.
The shape of error bodies, `{"errors": [{"msg", "code"}]}`, is the platform's, and so are the wordings and codes of 401 (one code
for three causes) and of 412. Those of the others are made up, and so is that recordings answer as other APIs were seen to.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, assert_never

from aiohttp import web
from yarl import URL

from archiver.simulator.answers import (
    HangFault,
    HttpAnswer,
    RateLimitedFault,
    RawAnswer,
    ResetFault,
    StatusAnswer,
    UnauthorizedFault,
)
from archiver.simulator.connections import http_date, reset_connection, until_the_client_goes
from archiver.simulator.inline import inline_answer
from archiver.simulator.limits import MESSAGES, SlidingWindows, retry_after_header
from archiver.simulator.tally import ApiTally
from archiver.simulator.tokens import INVALID_CREDENTIALS, UNVERIFIED, TokenRefused, check_jti, check_token

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from archiver.simulator.answers import AnyAnswer
    from archiver.simulator.limits import Refusal
    from archiver.simulator.sessions import Recording, Session
    from archiver.simulator.settings import ErrorShape, Scope, SimulatorSettings

PATHS_V1 = {"1.1": "/api/1.1/public/bot/{bot_id}/recordings", "plain": "/api/public/bot/{bot_id}/recordings"}

SCOPE_INCORRECT = "Permission denied. Scope is incorrect!"
INVALID_ARGUMENTS = "Validation errors/ Invalid arguments"
UNAUTHORIZED_CODE = 4002
NO_SUCH_BOT = "no such bot"
_WRONG = {"token": UNVERIFIED, "credentials": INVALID_CREDENTIALS, "scope": SCOPE_INCORRECT}

MAX_SCRIPT_BYTES = 64 * 1024 * 1024

UNOWNED = ("internal", "local", "localhost", "svc", "test")
"""Ends of names that nobody can register (`svc` is that of services in Kubernetes); nor can a name without a dot be."""


class Control(Protocol):
    """What the control endpoints control."""

    def script_all(self, data: Any) -> int: ...

    def alter(self, data: Any) -> dict[str, Any]: ...

    def add_bots(self, data: Any) -> int: ...

    def set_history(self, data: Any) -> dict[str, Any]: ...

    def report(self) -> dict[str, Any]: ...


@dataclass(slots=True)
class Bot:
    """A bot with the credentials of its one app. Its used `jti` are its own."""

    bot_id: str
    client_id: str
    client_secret: str = field(repr=False)
    account_id: str
    windows: SlidingWindows = field(default_factory=SlidingWindows)
    """The calls that count against the bot's own rate limits."""
    seen_jti: set[str] = field(default_factory=set)


class Denial(NamedTuple):
    """Why a call is not allowed: what the answer says, and why truly."""

    status: int
    message: str
    why: str


class Reply(NamedTuple):
    """How a call ends: `label` is how the report counts it; no response means a connection fault of that name."""

    label: str
    response: web.Response | None


class Api:
    """The API of all bots. Sessions are shared by the bots: any bot can ask for any session.

    `unscripted` is asked for a session that is not among `sessions`; None: the platform doesn't know it.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        media_url: Callable[[Recording], str],
        changed: Callable[[], None],
        unscripted: Callable[[str], Session | None],
    ) -> None:
        self.bots: dict[str, Bot] = {}
        self.accounts: defaultdict[str, SlidingWindows] = defaultdict(SlidingWindows)
        """The calls that count against the rate limits of each account, by its ID."""
        self.sessions: dict[str, Session] = {}
        self.reject_credentials = False
        self.tally = ApiTally()
        self._settings = settings
        self._media_url = media_url
        self._changed = changed
        self._unscripted = unscripted
        self._limit_messages = cycle(MESSAGES)

    def app(self, control: Control, more: Iterable[web.RouteDef] = ()) -> web.Application:
        """The API, `more` of it, and, where the settings allow it, the control endpoints."""
        app = web.Application(client_max_size=MAX_SCRIPT_BYTES)
        app.router.add_get("/api/public/bot/{bot_id}/v2/recordings", self.recordings, allow_head=False)
        app.router.add_get("/api/public/bot/{bot_id}/voicemail", self.voicemail, allow_head=False)
        for name, path in PATHS_V1.items():
            app.router.add_get(path, partial(self.recordings_v1, name), allow_head=False)
        app.add_routes(more)
        if self._settings.control:
            _add_control(app, control, {self._settings.host, self._settings.public_host})
        app.router.add_route("*", "/{path:.*}", _not_found)
        app.on_response_prepare.append(self._set_date)
        return app

    async def recordings(self, request: web.Request) -> web.StreamResponse:
        """One call of version 2."""
        return await self._answer(request, lambda session: web.json_response(self._document(session, "recording")))

    async def recordings_v1(self, path: str, request: web.Request) -> web.StreamResponse:
        """One call of version 1, by one of its paths."""
        if path not in self._settings.v1_paths:
            self.tally.calls += 1
            self.tally.by_status["http_404"] += 1
            self._changed()
            return await _not_found(request)
        return await self._answer(
            request,
            lambda session: web.Response(body=inline_answer(request, session.recordings), content_type="application/json"),
        )

    async def voicemail(self, request: web.Request) -> web.StreamResponse:
        """One call of the voicemail API."""

        def document(session: Session) -> web.Response:
            document = self._document(session, session.script.voicemail_key)
            if request.query.get("transcription") == "true" and session.script.transcriptions is not None:
                document["transcriptions"] = session.script.transcriptions
            return web.json_response(document)

        return await self._answer(request, document, voicemail=True)

    async def _answer(
        self, request: web.Request, success: Callable[[Session], web.Response], *, voicemail: bool = False
    ) -> web.StreamResponse:
        """One call: authentication first, then the rate limit, then the session's script."""
        self.tally.calls += 1
        if "Authorization" in request.headers:
            self.tally.authorization_header_seen += 1
        reply = self._reply(request, success, voicemail=voicemail)
        self.tally.by_status[reply.label] += 1
        self._changed()
        if reply.response is not None:
            return reply.response
        if reply.label == "reset":
            reset_connection(request)
        else:
            await until_the_client_goes()
        return web.Response()  # the connection is gone; aiohttp drops this

    def _reply(self, request: web.Request, success: Callable[[Session], web.Response], *, voicemail: bool) -> Reply:
        bot = self.bots.get(request.match_info["bot_id"])
        scope: Scope = "SmartAssist Voicemail" if voicemail else "SmartAssist Recordings"
        denied = self.denial(bot, request.headers.get("auth"), scope)
        if denied is not None:
            self.tally.last_refusal = denied.why
            if denied.why == NO_SUCH_BOT:
                return Reply("unknown_bot", error_response(denied.status, denied.message))
            return self._unauthorized(denied.status, denied.message)
        assert bot is not None
        windows = self.accounts[bot.account_id]
        refusal = windows.check(self._settings.account_rate_limits)
        if refusal is not None:
            self.tally.rate_limited += 1
            return Reply("rate_limited", self.limit_response(refusal))
        session_id = request.query.get("sessionId")
        if not session_id:
            windows.count()
            self.tally.last_refusal = "sessionId is required"
            return Reply("bad_request", error_response(412, INVALID_ARGUMENTS))

        self.tally.by_session[session_id] += 1
        if user_id := request.query.get("userId"):
            self.tally.user_ids[session_id] = user_id
        session = self.sessions.get(session_id) or self._unscripted(session_id)
        if session is None:
            windows.count()
            self.tally.unknown_sessions += 1
            return Reply("media_unavailable", web.json_response({"status": "media_unavailable"}))
        if session.script.voicemail != voicemail:
            windows.count()
            return Reply("media_unavailable", web.json_response({"status": "media_unavailable"}))
        step = session.timeline.ask()
        if not isinstance(step, RateLimitedFault):
            windows.count()
        reply = self._step(session, step, success)
        if reply.response is not None:
            reply.response.headers.update(step.headers)
        return reply

    def denial(self, bot: Bot | None, token: str | None, scope: Scope) -> Denial | None:
        """Why a call with this token is not allowed; None: it is. Without a bot it never is."""
        try:
            self._authenticate(bot, token)
        except TokenRefused as error:
            return Denial(401, error.says, str(error))
        if bot is None:
            status = self._settings.unknown_bot_status
            return Denial(status, INVALID_CREDENTIALS if status == 401 else "Bot not found", NO_SUCH_BOT)
        if scope not in self._settings.scopes:
            return Denial(self._settings.scope_status, SCOPE_INCORRECT, f"the app lacks the scope {scope}")
        return None

    def limit_response(self, refusal: Refusal, shape: ErrorShape = "errors") -> web.Response:
        """The answer to a call over a rate limit."""
        retry_after = refusal.retry_after if self._settings.retry_after else None
        return _limit_response(self._settings.rate_limit_status, refusal.message, retry_after, shape)

    def _authenticate(self, bot: Bot | None, token: str | None) -> None:
        settings = self._settings
        if self.reject_credentials:
            raise TokenRefused("the app was disabled", INVALID_CREDENTIALS)
        claims = check_token(
            token,
            apps={each.client_id: each.client_secret for each in (*self.bots.values(), *([bot] if bot is not None else []))},
            public_key_pem=settings.public_key_pem,
            algorithms=settings.algorithms,
            enforce_jwe=settings.enforce_jwe,
        )
        if bot is None:
            return
        if claims["appId"] != bot.client_id:
            raise TokenRefused("the bot is not the app's", INVALID_CREDENTIALS)
        if settings.enforce_jti:
            check_jti(claims, bot.seen_jti)

    def _step(self, session: Session, step: AnyAnswer, success: Callable[[Session], web.Response]) -> Reply:
        match step:
            case StatusAnswer(status="success"):
                return Reply("success", success(session))
            case StatusAnswer():
                return Reply(step.status, web.json_response({"status": step.status}))
            case HttpAnswer():
                response = _verbatim(step.http_status, step.body, step.content_type)
                return Reply(f"http_{step.http_status}", response)
            case RawAnswer():
                return Reply("raw", _verbatim(200, step.raw, step.content_type))
            case ResetFault() | HangFault():
                return Reply(step.fault, None)
            case RateLimitedFault():
                return self._rate_limited(step.http_status, next(self._limit_messages), step.retry_after)
            case UnauthorizedFault():
                return self._unauthorized(step.http_status, _WRONG[step.wrong])
            case _:
                assert_never(step)

    def _document(self, session: Session, key: str) -> dict[str, Any]:
        document: dict[str, Any] = {"status": "success"}
        if session.has_recording_key:
            document[key] = [
                {
                    "fileName": recording.file_name,
                    "fileUrl": recording.url if recording.url is not None else self._media_url(recording),
                }
                for recording in session.recordings
            ]
        return document

    def _unauthorized(self, status: int, message: str) -> Reply:
        self.tally.unauthorized += 1
        return Reply("unauthorized", error_response(status, message))

    def _rate_limited(self, status: int, message: str, retry_after: float | None) -> Reply:
        self.tally.rate_limited += 1
        return Reply("rate_limited", _limit_response(status, message, retry_after))

    async def _set_date(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = http_date(self._settings.clock_skew)


def _add_control(app: web.Application, control: Control, hosts: Container[str | None]) -> None:
    async def add_sessions(request: web.Request) -> web.Response:
        return web.json_response({"sessions": control.script_all(await _json(request))})

    async def set_history(request: web.Request) -> web.Response:
        return web.json_response(control.set_history(await _json(request)))

    async def add_bots(request: web.Request) -> web.Response:
        return web.json_response({"bots": control.add_bots(await _json(request))})

    async def report(_: web.Request) -> web.Response:
        return web.json_response(control.report())

    async def alter(request: web.Request) -> web.Response:
        return web.json_response(control.alter(await _json(request)))

    @web.middleware
    async def explain(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        if why := _foreign(request, hosts):
            return error_response(403, why)
        try:
            response: web.StreamResponse = await handler(request)
        except ValueError as error:
            return error_response(400, str(error))
        return response

    panel = web.Application(client_max_size=MAX_SCRIPT_BYTES, middlewares=[explain])
    panel.router.add_post("/sessions", add_sessions)
    panel.router.add_post("/history", set_history)
    panel.router.add_post("/bots", add_bots)
    panel.router.add_get("/report", report)
    panel.router.add_post("/settings", alter)
    app.add_subapp("/_simulator", panel)


def _foreign(request: web.Request, hosts: Container[str | None]) -> str:
    """Why a request may be that of a web page in somebody's browser, which can reach loopback as we can; else nothing.

    There is no page of ours, so none has an origin. One whose name an attacker leads here (DNS rebinding) is known by Host alone.
    """
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        return "the simulator takes no orders from web pages"
    host = ""
    try:
        host = (URL(f"http://{request.host}").host or "").rstrip(".")
        if host in hosts or "." not in host or host.rpartition(".")[2] in UNOWNED:
            return ""
        ip_address(host)
    except ValueError:
        return f"the simulator takes no orders by the name of {host!r}: ask by its address, or as localhost"
    return ""


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except ValueError as error:
        raise ValueError(f"the body is not JSON: {error}") from error


async def _not_found(request: web.Request) -> web.Response:
    return error_response(404, f"Cannot {request.method} {request.path}")


def error_response(status: int, message: str, shape: ErrorShape = "errors") -> web.Response:
    """An error in the platform's shape, or in another."""
    match shape:
        case "errors":
            code = UNAUTHORIZED_CODE if status in {401, 403} else status
            return web.json_response({"errors": [{"msg": message, "code": code}]}, status=status)
        case "error":
            return web.json_response({"error": {"message": message}}, status=status)
        case "message":
            return web.json_response({"message": message}, status=status)
        case "text":
            return web.Response(text=message, status=status)


def _limit_response(status: int, message: str, retry_after: float | None, shape: ErrorShape = "errors") -> web.Response:
    response = error_response(status, message, shape)
    if retry_after is not None and status == 429:
        response.headers["Retry-After"] = retry_after_header(retry_after)
    return response


def _verbatim(status: int, body: str, content_type: str) -> web.Response:
    # aiohttp's own content_type would add a charset; the script's goes out as it is.
    return web.Response(status=status, body=body.encode(), headers={"Content-Type": content_type})
