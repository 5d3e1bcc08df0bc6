"""The listings of the calls that happened: the sessions history of a bot, and two of the account's analytics.

Vendor: POST /api/public/bot/{botId}/getSessions?containmentType=.. (scope "Bot Sessions"; the bot's rate limits), and
POST /agentassist/api/public/analytics/account/{accountId}/v2/callDetails?offset=..&limit=.. (scope "SmartAssist Analytics"; rate
limits of the account, which recordings count against, too), with the headers `accountId` and `iId`, the bot's ID. As callDetails,
and interactionDetails beside it: that one lists the sessions that ended at the bot, too.

Made up, because the vendor's pages don't say: that a wrong question is a 412 and another's account a 400, as in other APIs; that
the seven days of getSessions are counted by the millisecond; what an encrypted answer is made of. An unknown key is a 412, so
that a misspelt one cannot go unseen. All bots share the calls.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from pydantic import AfterValidator, Field, StrictBool, StrictInt

from archiver.simulator.api import INVALID_ARGUMENTS, error_response
from archiver.simulator.calls import MILLISECOND, Containment, Direction, unix_ms
from archiver.simulator.checked import Checked, parse
from archiver.simulator.history import History, details_filter, sessions_filter
from archiver.simulator.rows import details_row, session_row
from archiver.simulator.tally import ListingsTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from archiver.simulator.api import Api, Bot
    from archiver.simulator.limits import SlidingWindows
    from archiver.simulator.settings import ErrorShape, Scope, SimulatorSettings

LOOK_UP_AT_MOST = 50
PAGES_OF_DETAILS = 10
LONGEST_DETAILS = timedelta(days=7)
SESSIONS_LESS_THAN = timedelta(days=7)
SESSIONS_WITHOUT_DATES = timedelta(days=7)
TAGS_ARE_KEPT = timedelta(days=14)
EVER = (-(2**60), 2**60)
"""A window, in Unix milliseconds, that no call is outside of."""
TOO_MANY = 7
"""How many more a wrong total promises."""

_DAY_MS = 86_400_000


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _real(text: str) -> str:
    _utc(text)
    return text


Limit = Annotated[StrictInt, Field(ge=1, le=100)]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d\.\d{1,3}Z)?$"), AfterValidator(_real)]
LocalTime = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"), AfterValidator(_real)]


class SessionsQuery(Checked):
    """The body of getSessions. A bare date in `dateTo` means its whole day. With `sessionId` no other filter counts."""

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
    timeZoneOffset: Annotated[StrictInt, Field(ge=-900, le=900)]  # noqa: N815
    """Minutes from local time to GMT: negative east of it."""
    selectedFields: list[str] | None = None  # noqa: N815


class DetailsPage(Checked):
    """The query of callDetails."""

    offset: Annotated[int, Field(ge=0, le=PAGES_OF_DETAILS)] = 0
    """The page's number. Whether the last of these is a page is a setting."""
    limit: Annotated[int, Field(ge=1, le=100)] = 100


class SessionsFilter(Checked):
    """The query of getSessions."""

    containmentType: Containment | None = None  # noqa: N815 - the vendor's spelling


class Listings:
    """Answers the listings from `history`, which can be replaced at any time."""

    def __init__(self, settings: SimulatorSettings, api: Api, changed: Callable[[], None]) -> None:
        self.history = History()
        self.tally = ListingsTally()
        self._settings = settings
        self._api = api
        self._changed = changed

    def routes(self) -> list[web.RouteDef]:
        analytics = "/agentassist/api/public/analytics/account/{account_id}/v2"
        return [
            web.post("/api/public/bot/{bot_id}/getSessions", self.get_sessions),
            web.post(f"{analytics}/{{name:callDetails|calldetails|interactionDetails}}", self.details),
        ]

    async def get_sessions(self, request: web.Request) -> web.Response:
        """The sessions history: newest first, all channels."""
        self.tally.get_sessions += 1
        if "getSessions" not in self._settings.listings:
            return self._done(_not_found(request, "errors"))
        bot = self._api.bots.get(request.match_info["bot_id"])
        if bot is None:
            return self._done(self._unknown_bot(request, "Bot Sessions"))
        refusal = self._admit(bot, request, "Bot Sessions", bot.windows, self._settings.rate_limits)
        return self._done(refusal or self._answer(await request.read(), lambda body: self._sessions(bot, request, body)))

    async def details(self, request: web.Request) -> web.Response:
        """The contact center's analytics: the calls of a time, a page at a time."""
        name: Literal["interactionDetails", "callDetails"] = "callDetails"
        if request.match_info["name"] == "interactionDetails":
            name = "interactionDetails"
            self.tally.interaction_details += 1
        else:
            self.tally.call_details += 1
        shape = self._settings.agentassist_errors
        if name not in self._settings.listings:
            return self._done(_not_found(request, shape))
        bot = self._api.bots.get(request.headers.get("iId", ""))
        if bot is None:
            return self._done(self._unknown_bot(request, "SmartAssist Analytics", shape))
        windows, limits = self._api.accounts[bot.account_id], self._settings.account_rate_limits
        refusal = self._admit(bot, request, "SmartAssist Analytics", windows, limits, shape)
        refusal = refusal or self._foreign_account(bot, request, shape)
        return self._done(
            refusal or self._answer(await request.read(), lambda body: self._details(name, bot, request, body), shape)
        )

    def _foreign_account(self, bot: Bot, request: web.Request, shape: ErrorShape) -> web.Response | None:
        if {request.match_info["account_id"], request.headers.get("accountId")} == {bot.account_id}:
            return None
        self.tally.refused += 1
        self.tally.last_refusal = "the account in the path and the header accountId must both be the account's ID"
        return error_response(400, "Invalid account id", shape)

    def _unknown_bot(self, request: web.Request, scope: Scope, shape: ErrorShape = "errors") -> web.Response:
        denied = self._api.denial(None, request.headers.get("auth"), scope)
        assert denied is not None
        self.tally.last_refusal = denied.why
        return error_response(denied.status, denied.message, shape)

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
            document = answer(body)
            if self._settings.encrypted_listings or body.get("includeMeta") is True:
                document = _encrypted()
            return web.json_response(document)
        except ValueError as error:
            self.tally.refused += 1
            self.tally.last_refusal = str(error)
            return error_response(412, INVALID_ARGUMENTS, shape)

    def _sessions(self, bot: Bot, request: web.Request, body: dict[str, Any]) -> dict[str, Any]:
        query = parse(SessionsQuery, body, "getSessions")
        containment = parse(SessionsFilter, dict(request.query), "getSessions").containmentType
        skip = 0 if self._settings.listing_fault == "repeats_page" else query.skip
        unknown: list[str] = []
        tags_from = -EVER[1]
        if query.sessionId is not None:
            self.history.begin_listing()
            found = self.history.look_up(query.sessionId)
            calls, total = found[skip : skip + query.limit], len(found)
            known = {call.session_id for call in found}
            unknown = [each for each in dict.fromkeys(query.sessionId) if each not in known]
            tags_from = unix_ms(datetime.now(UTC) - TAGS_ARE_KEPT)
        else:
            first, last = self._window(_sessions_window(query))
            self.history.begin_listing()
            fit = sessions_filter(containment)
            calls, total = self.history.page(fit, first, last, skip=skip, limit=query.limit, newest_first=True)
        self.tally.rows += len(calls)
        as_number = self._settings.developer_flag == "number"
        return {
            "total": total + (TOO_MANY if self._settings.session_totals == "wrong" else 0),
            "moreAvailable": query.skip + len(calls) < total,
            "sessions": [
                session_row(
                    call,
                    bot.bot_id,
                    developer=int(call.developer) if as_number else call.developer,
                    with_tags=call.started_ms >= tags_from,
                )
                for call in calls
            ],
            "invalidSessions": unknown,
        }

    def _details(
        self, name: Literal["callDetails", "interactionDetails"], bot: Bot, request: web.Request, body: dict[str, Any]
    ) -> dict[str, Any]:
        page = parse(DetailsPage, dict(request.query), name)
        query = parse(DetailsQuery, body, name)
        first, last = self._window(_details_window(query))
        eleventh = page.offset == PAGES_OF_DETAILS
        if eleventh and self._settings.eleventh_page == "refused":
            raise ValueError(f"{name}: offset is at most {PAGES_OF_DETAILS - 1}")
        self.history.begin_listing()
        found = self.history.page(
            details_filter(
                voice=_voice(query.channels),
                direction=None if query.direction == "Both" else query.direction,
                with_bot=name == "interactionDetails",
            ),
            first,
            last,
            skip=0 if self._settings.listing_fault == "repeats_page" else page.offset * page.limit,
            limit=0 if eleventh and self._settings.eleventh_page == "empty" else page.limit,
            newest_first=self._settings.page_order == "newest",
        )
        self.tally.rows += len(found.calls)
        totals = {"page": len(found.calls), "all": found.total, "wrong": found.total + TOO_MANY}
        selected = query.selectedFields or ()
        return {
            "numResults": totals[self._settings.num_results],
            "data": [details_row(call, bot.bot_id, query.timeZoneOffset, selected) for call in found.calls],
        }

    def _window(self, asked: tuple[int, int]) -> tuple[int, int]:
        """The window that is answered."""
        return EVER if self._settings.listing_fault == "ignores_window" else asked

    def _done(self, response: web.Response) -> web.Response:
        self._changed()
        return response


def _sessions_window(query: SessionsQuery) -> tuple[int, int]:
    """The first and the last millisecond (Unix) that `query` asks for.

    Raises ValueError where the last is before the first, or both are given and too far apart.
    """
    last = int(time.time() * 1000)
    if query.dateTo is not None:
        last = unix_ms(_utc(query.dateTo))
        if len(query.dateTo) == 10:
            last += _DAY_MS - 1
    first = last - SESSIONS_WITHOUT_DATES // MILLISECOND
    if query.dateFrom is not None:
        first = unix_ms(_utc(query.dateFrom))
        if query.dateTo is None:
            last = min(last, first + SESSIONS_WITHOUT_DATES // MILLISECOND)
    if first > last:
        raise ValueError("getSessions: dateFrom is after dateTo")
    if query.dateFrom and query.dateTo and last - first >= SESSIONS_LESS_THAN // MILLISECOND:
        raise ValueError("getSessions: dateFrom and dateTo must be less than 7 days apart")
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


def _encrypted() -> dict[str, Any]:
    """An answer of an app that encrypts its payloads: as good as noise to who doesn't hold the key."""
    payload, key, iv = (base64.b64encode(secrets.token_bytes(size)).decode() for size in (512, 256, 12))
    return {"encryptedData": payload, "encryptedKey": key, "metadata": {"algorithm": "AES-256-GCM", "iv": iv}}


def _not_found(request: web.Request, shape: ErrorShape) -> web.Response:
    return error_response(404, f"Cannot {request.method} {request.path}", shape)


def _voice(channels: list[str] | None) -> bool | None:
    """Which calls have one of these channels: the spoken ones (True), the others (False), all (None)."""
    kinds = {channel.lower() == "voice" for channel in channels or ()}
    return kinds.pop() if len(kinds) == 1 else None
