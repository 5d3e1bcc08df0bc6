"""Both listings of the calls that happened: the sessions history of a bot, and the call details of the account.

Vendor: POST /api/public/bot/{botId}/getSessions?containmentType=.. (scope "Bot Sessions"; the bot's rate limits), and
POST /agentassist/api/public/analytics/account/{accountId}/v2/callDetails?offset=..&limit=.. (scope "SmartAssist Analytics"; rate
limits of the account, which recordings count against, too), with the headers `accountId` and `iId`, the bot's ID.

Made up, because the vendor's pages don't say: that a wrong question is a 412 and another's account a 400, as in other APIs;
`sessionType`; of a call that is running the `sessionStatus` ("active") and `finalStatus` ("OPEN"), that its `end_time` is null
and its `sessionEndTime` left out; the `channel` of a chat in the details (its own name). An unknown key is a 412, so that a
misspelt one cannot go unseen. All bots share the calls.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, Field, StrictBool, StrictInt

from archiver.simulator.api import INVALID_ARGUMENTS, error_response
from archiver.simulator.calls import EPOCH, MILLISECOND, Containment, Direction, unix_ms
from archiver.simulator.checked import Checked, parse
from archiver.simulator.history import History, details_filter, sessions_filter
from archiver.simulator.tally import ListingsTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from archiver.simulator.api import Api, Bot
    from archiver.simulator.calls import Call
    from archiver.simulator.limits import SlidingWindows
    from archiver.simulator.settings import ErrorShape, Scope, SimulatorSettings

LOOK_UP_AT_MOST = 50
PAGES_OF_DETAILS = 10
LONGEST_DETAILS = timedelta(days=7)
SESSIONS_WITHOUT_DATES = timedelta(days=7)
TOO_MANY = 7
"""How many more a wrong total promises."""

_DAY_MS = 86_400_000
_IDS = uuid.UUID("0d0b7c44-5b1e-4b8c-9c39-2b1f5ef0c7f2")


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _real(text: str) -> str:
    _utc(text)
    return text


Limit = Annotated[StrictInt, Field(ge=1, le=100)]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d\.\d{1,3}Z)?$"), AfterValidator(_real)]
LocalTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"), AfterValidator(_real)]


class SessionsQuery(Checked):
    """The body of getSessions. A bare date in `dateTo` means its whole day."""

    skip: Annotated[StrictInt, Field(ge=0)] = 0
    limit: Limit = 100
    dateFrom: Moment | None = None  # noqa: N815 - the vendor's spelling
    dateTo: Moment | None = None  # noqa: N815
    includeMeta: StrictBool = False  # noqa: N815
    sessionId: Annotated[list[str], Field(max_length=LOOK_UP_AT_MOST)] | None = None  # noqa: N815


class DetailsQuery(Checked):
    """The body of callDetails. Its times are local, whole seconds, and both included."""

    startDate: LocalTime  # noqa: N815 - the vendor's spelling
    endDate: LocalTime  # noqa: N815
    channels: list[str] | None = None
    direction: Literal["Both"] | Direction = "Both"
    timeZoneOffset: Annotated[StrictInt, Field(ge=-900, le=900)] = 0  # noqa: N815
    """Minutes from local time to GMT: negative east of it."""
    selectedFields: list[str] | None = None  # noqa: N815


class DetailsPage(Checked):
    """The query of callDetails."""

    offset: Annotated[int, Field(ge=0, lt=PAGES_OF_DETAILS)] = 0
    """The page's number."""
    limit: Annotated[int, Field(ge=1, le=100)] = 100


class SessionsFilter(Checked):
    """The query of getSessions."""

    containmentType: Containment | None = None  # noqa: N815 - the vendor's spelling


class Listings:
    """Answers both listings from `history`, which can be replaced at any time."""

    def __init__(self, settings: SimulatorSettings, api: Api, changed: Callable[[], None]) -> None:
        self.history = History()
        self.tally = ListingsTally()
        self._settings = settings
        self._api = api
        self._changed = changed

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/public/bot/{bot_id}/getSessions", self.get_sessions),
            web.post("/agentassist/api/public/analytics/account/{account_id}/v2/callDetails", self.call_details),
        ]

    async def get_sessions(self, request: web.Request) -> web.Response:
        """The sessions history: newest first, all channels."""
        self.tally.get_sessions += 1
        bot = self._api.bots.get(request.match_info["bot_id"])
        if bot is None:
            return self._done(self._unknown_bot())
        refusal = self._admit(bot, request, "Bot Sessions", bot.windows, self._settings.rate_limits)
        return self._done(refusal or self._answer(await request.read(), lambda body: self._sessions(bot, request, body)))

    async def call_details(self, request: web.Request) -> web.Response:
        """The contact center's analytics: the calls of a time, a page at a time."""
        self.tally.call_details += 1
        bot = self._api.bots.get(request.headers.get("iId", ""))
        shape = self._settings.agentassist_errors
        if bot is None:
            return self._done(self._unknown_bot(shape))
        windows, limits = self._api.accounts[bot.account_id], self._settings.account_rate_limits
        refusal = self._admit(bot, request, "SmartAssist Analytics", windows, limits, shape)
        refusal = refusal or self._foreign_account(bot, request, shape)
        return self._done(refusal or self._answer(await request.read(), lambda body: self._details(bot, request, body), shape))

    def _foreign_account(self, bot: Bot, request: web.Request, shape: ErrorShape) -> web.Response | None:
        if {request.match_info["account_id"], request.headers.get("accountId")} == {bot.account_id}:
            return None
        self.tally.refused += 1
        self.tally.last_refusal = "the account in the path and the header accountId must both be the account's ID"
        return error_response(400, "Invalid account id", shape)

    def _unknown_bot(self, shape: ErrorShape = "errors") -> web.Response:
        self.tally.last_refusal = "no such bot"
        return self._api.unknown_bot(shape)

    def _admit(
        self,
        bot: Bot,
        request: web.Request,
        scope: Scope,
        windows: SlidingWindows,
        limits: tuple[str, ...],
        shape: ErrorShape = "errors",
    ) -> web.Response | None:
        """Authentication, then the scope, then the rate limits; counts the call if it is let through, else the refusal."""
        denied = self._api.denial(bot, request.headers.get("auth"), scope)
        if denied is not None:
            self.tally.unauthorized += 1
            self.tally.last_refusal = denied.why
            return error_response(denied.status, denied.message, shape)
        refusal = windows.check(limits)
        if refusal is not None:
            self.tally.rate_limited += 1
            return self._api.limit_response(refusal, shape)
        windows.count()
        return None

    def _answer(
        self, content: bytes, answer: Callable[[dict[str, Any]], dict[str, Any]], shape: ErrorShape = "errors"
    ) -> web.Response:
        try:
            body = json.loads(content or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body is not a JSON object")  # noqa: TRY004, TRY301
            return web.json_response(answer(body))
        except ValueError as error:
            self.tally.refused += 1
            self.tally.last_refusal = str(error)
            return error_response(412, INVALID_ARGUMENTS, shape)

    def _sessions(self, bot: Bot, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        query = parse(SessionsQuery, body, "getSessions")
        containment = parse(SessionsFilter, dict(request.query), "getSessions").containmentType
        first, last = _sessions_window(query)
        self.history.begin_listing()
        if query.sessionId is not None:
            found = self.history.look_up(query.sessionId)
            calls, total = found[query.skip : query.skip + query.limit], len(found)
        else:
            fit = sessions_filter(containment)
            page = self.history.page(fit, first, last, skip=query.skip, limit=query.limit, newest_first=True)
            calls, total = page
        self.tally.rows += len(calls)
        return {
            "total": total + (TOO_MANY if self._settings.session_totals == "wrong" else 0),
            "moreAvailable": query.skip + len(calls) < total,
            "sessions": [_session_row(call, bot.bot_id) for call in calls],
        }

    def _details(self, bot: Bot, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        page = parse(DetailsPage, dict(request.query), "callDetails")
        query = parse(DetailsQuery, body, "callDetails")
        first, last = _details_window(query)
        self.history.begin_listing()
        found = self.history.page(
            details_filter(voice=_voice(query.channels), direction=None if query.direction == "Both" else query.direction),
            first,
            last,
            skip=page.offset * page.limit,
            limit=page.limit,
            newest_first=self._settings.page_order == "newest",
        )
        self.tally.rows += len(found.calls)
        totals = {"page": len(found.calls), "all": found.total, "wrong": found.total + TOO_MANY}
        return {
            "numResults": totals[self._settings.num_results],
            "data": [_details_row(call, bot.bot_id, query.timeZoneOffset) for call in found.calls],
        }

    def _done(self, response: web.Response) -> web.Response:
        self._changed()
        return response


def _sessions_window(query: SessionsQuery) -> tuple[int, int]:
    """The first and the last millisecond (Unix) that `query` asks for. Raises ValueError where the last is before the first."""
    last = int(time.time() * 1000)
    if query.dateTo is not None:
        last = unix_ms(_utc(query.dateTo))
        if len(query.dateTo) == 10:
            last += _DAY_MS - 1
    first = last - SESSIONS_WITHOUT_DATES // MILLISECOND
    if query.dateFrom is not None:
        first = unix_ms(_utc(query.dateFrom))
    if first > last:
        raise ValueError("getSessions: dateFrom is after dateTo")
    return first, last


def _details_window(query: DetailsQuery) -> tuple[int, int]:
    """As `_sessions_window`, and ValueError where it is too long."""
    first, last = _utc(query.startDate), _utc(query.endDate)
    if first > last:
        raise ValueError("callDetails: startDate is after endDate")
    if last - first > LONGEST_DETAILS:
        raise ValueError(f"callDetails: startDate and endDate are more than {LONGEST_DETAILS.days} days apart")
    offset_ms = query.timeZoneOffset * 60_000
    # Calls are compared by the second, so the last one counts to its end.
    return unix_ms(first) + offset_ms, unix_ms(last) + offset_ms + 999


def _voice(channels: list[str] | None) -> bool | None:
    """Which calls have one of these channels: the spoken ones (True), the others (False), all (None)."""
    kinds = {channel.lower() == "voice" for channel in channels or ()}
    return kinds.pop() if len(kinds) == 1 else None


def _session_row(call: Call, bot_id: str) -> dict[str, Any]:
    return {
        "sessionId": call.session_id,
        "botId": bot_id,
        "channel": call.channel,
        "userId": _user_id(call),
        "start_time": _iso(call.started_ms),
        "end_time": None if call.ended_ms is None else _iso(call.ended_ms),
        "session_lang": call.language,
        "sessionType": "Interactive",
        "sessionStatus": "active" if call.ended_ms is None else "closed",
        "tags": call.tags,
        "containmentType": call.containment,
    }


def _details_row(call: Call, bot_id: str, offset_minutes: int) -> dict[str, Any]:
    end = {} if call.ended_ms is None else {"sessionEndTime": _local(call.ended_ms, offset_minutes)}
    return {
        "conversationId": call.conversation_id or f"c-{uuid.uuid5(_IDS, call.session_id)}",
        "sessionId": call.session_id,
        "channel": "Voice" if call.is_voice else call.channel,
        "isVoicemail": "YES" if call.voicemail else "NO",
        "Direction": call.direction,
        "sessionStartTime": _local(call.started_ms, offset_minutes),
        **end,
        "finalStatus": "CLOSED" if end else "OPEN",
        "botId": bot_id,
        "userId": _user_id(call),
        "metaInfo": _given(caller=call.caller, callee=call.callee),
        "destinations": _destinations(call),
        "dispositions": call.dispositions,
    }


def _destinations(call: Call) -> list[dict[str, Any]]:
    agent = _given(agentId=call.agent_id, name=call.agent)
    destination = _given(queueName=call.queue, respondingAgent=agent or None)
    return [destination] if destination else []


def _given(**facts: Any) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}


def _user_id(call: Call) -> str:
    return call.user_id or f"u-{uuid.uuid5(_IDS, f'user {call.session_id}')}"


def _iso(moment_ms: int) -> str:
    return f"{EPOCH + moment_ms * MILLISECOND:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1000:03}Z"


def _local(moment_ms: int, offset_minutes: int) -> str:
    """Local time without its zone, in whole seconds."""
    return f"{EPOCH + moment_ms * MILLISECOND - timedelta(minutes=offset_minutes):%Y-%m-%dT%H:%M:%S}"
