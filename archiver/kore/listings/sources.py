"""The platform's listings of calls, page by page.

Sessions history (`getSessions`) shows all of a stretch of time that is shorter than seven days, page by page, newest first, to
the millisecond. Call details (version 2) and interaction details are in whole seconds and show ten pages of a hundred at most,
of at most seven days. `archiver.kore.listings.reader` makes whole stretches of pages.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from archiver.errors import ApiDefect, NoListing
from archiver.kore.client import NO_LISTING_HINT, KoreClient
from archiver.kore.listings.calls import MILLISECOND, SECOND, Page, Row, Span
from archiver.kore.listings.facts import read_detail, read_session
from archiver.kore.listings.values import kind_of, shortened, table_of, word_of

PAGE = 100
"""Rows that a page has at most: the vendor's limit for call details, and what its samples ask getSessions for."""

MAX_PAGES = 10
"""Pages of call details that one stretch of time can show."""

OUR_REQUEST = (400, 412, 422)
"""What a platform says of a request that it does not understand, or not from this account."""

Draw = Callable[[], Awaitable[None]]


class Source(Protocol):
    """One of the listings."""

    grain: timedelta
    """Stretches begin and end at multiples of it."""
    longest: timedelta
    """What one stretch can be."""
    wanted: int
    """Rows that a stretch should have: what is read again after it was broken off."""
    most: int
    """Rows that a stretch may have: they are in memory together."""
    shows_all: bool
    """Whether any stretch can be read to its end, however many rows it has; else `MAX_PAGES` of it are shown."""

    async def page(self, span: Span, number: int, seen: int) -> Page:
        """Page `number` (from 0) of a stretch of which `seen` rows have been read. Raises KoreError."""


class SessionsHistory:
    """`getSessions` of one bot. Needs the scope Bot Sessions; counts on the bot's own limits.

    Its dates have to be less than seven days apart; whether hours count is not said. `includeMeta` is left out: by the vendor's
    page it encrypts the answer.
    """

    name: str = "sessions"
    grain: timedelta = MILLISECOND
    longest: timedelta = timedelta(days=6, hours=23)
    wanted: int = 5000
    most: int = 20_000
    shows_all: bool = True
    facts: bool = True
    """Whether what is told of a call is read, beside when it was: an account needs none of it."""

    def __init__(self, client: KoreClient, draw: Draw) -> None:
        self._client = client
        self._draw = draw

    async def page(self, span: Span, number: int, seen: int) -> Page:
        last = span.end - MILLISECOND
        answer = await _asked(
            self._client,
            f"/api/public/bot/{quote(self._client.bot.bot_id, safe='')}/getSessions",
            {"skip": seen, "limit": PAGE, "dateFrom": _instant(span.start), "dateTo": _instant(last)},
            headers={},
            scope="Bot Sessions",
            draw=self._draw,
        )
        return await asyncio.to_thread(_page, answer, "sessions", "total", partial(read_session, facts=self.facts))


class CallDetails:
    """Call details, version 2, of one bot. Needs the scope SmartAssist Analytics; counts on the account's limits.

    Times are asked for in GMT, so that no clock change can hide an hour or show it twice.
    """

    name: str = "call_details"
    path: str = "callDetails"
    grain: timedelta = SECOND
    longest: timedelta = timedelta(days=7)
    wanted: int = 5000
    most: int = 20_000
    shows_all: bool = False
    facts: bool = True

    def __init__(self, client: KoreClient, draw: Draw) -> None:
        self._client = client
        self._draw = draw

    async def page(self, span: Span, number: int, seen: int) -> Page:
        bot = self._client.bot
        answer = await _asked(
            self._client,
            f"/agentassist/api/public/analytics/account/{quote(bot.account_id, safe='')}/v2/{self.path}"
            f"?offset={number}&limit={PAGE}",
            {
                "startDate": f"{span.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                "endDate": f"{(span.end - SECOND).astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                "channels": ["voice"],
                "direction": "Both",
                "timeZoneOffset": 0,
                "selectedFields": ["customerinfo", "sessionleveltags", "campaigninfo"],
            },
            headers={"accountId": bot.account_id, "iId": bot.bot_id},
            scope="SmartAssist Analytics",
            draw=self._draw,
        )
        return await asyncio.to_thread(_page, answer, "data", "numResults", partial(read_detail, facts=self.facts))


class InteractionDetails(CallDetails):
    """Interaction details: as call details, and with the calls that ended at the bot. Not every account has them."""

    name: str = "interaction_details"
    path: str = "interactionDetails"


def sources_of(client: KoreClient, *, sessions: Draw, details: Draw) -> list[SessionsHistory | CallDetails]:
    """Those that the bot's `discovery` names, the better one first: details tell voicemails apart, and more of a call, but need
    an account; interaction details list more calls. `sessions` and `details` draw for each.
    """
    history = SessionsHistory(client, sessions)
    calls, interactions = CallDetails(client, details), InteractionDetails(client, details)
    match client.bot.discovery:
        case "sessions":
            return [history]
        case "call_details":
            return [calls]
        case "interaction_details":
            return [interactions]
        case _:
            return [interactions, calls, history] if client.bot.account_id else [history]


class _Named(Protocol):
    name: str


N = TypeVar("N", bound=_Named)


def sources_in_use(sources: list[N], told: Collection[str]) -> list[N]:
    """Of several sources those to try for a bot whose calls were `told` by some before: call details are not left for the fuller
    listing.
    """
    stays = CallDetails.name in told and InteractionDetails.name not in told
    return [each for each in sources if not (stays and len(sources) > 1 and each.name == InteractionDetails.name)]


async def _asked(
    client: KoreClient, path: str, body: Mapping[str, Any], *, headers: Mapping[str, str], scope: str, draw: Draw
) -> Any:
    """The answer to a request for a page. A refusal names the request. Raises KoreError."""
    try:
        return await client.listing(path, json=body, headers=headers, scope=scope, draw=draw)
    except ApiDefect as defect:
        if defect.facts.get("http_status") not in OUR_REQUEST:
            raise
        asked, name = json.dumps(body), client.bot.name
        raise ApiDefect(
            f"{defect.message}, to our request {path} {asked}",
            reason=defect.reason,
            hint=f"check bots.{name}.account_id and bots.{name}.bot_id; if they are right, tell the archiver's developers",
            **defect.facts,
        ) from None


def _page(answer: Any, rows_key: str, total_key: str, read: Callable[[Mapping[str, Any]], Row]) -> Page:
    """What one answer says. Not for the event loop: all its texts are redacted, which a hostile one makes slow."""
    about = table_of(answer)
    total = re.fullmatch(r"(\d{1,12})(\.0*)?", word_of(about.get(total_key)))
    rows = _rows(answer, rows_key)
    if rows is None and total and not int(total[1]) and not about.get(rows_key) and not about.get("errors"):
        rows = []
    if rows is None:
        names = ", ".join(key if _NAME.fullmatch(key) else "(another)" for key in list(about)[:_SHOWN_KEYS])
        raise NoListing(
            f"a listing without its list {rows_key}: an object with {f'the keys {names}' if names else 'nothing in it'}",
            hint=NO_LISTING_HINT,
        )
    made = [
        read(row) if isinstance(row, dict) else Row(shortened(word_of(row)), unreadable=f"a {kind_of(row)}, not an object")
        for row in rows
    ]
    return Page(made, int(total[1]) if total else None, about.get("moreAvailable") is True)


def _rows(answer: Any, key: str) -> list[Any] | None:
    """The rows of an answer. The vendor shows call details without the wrapper that interaction details have: a list of rows, or
    a row, is taken for what it is wherever it stands.
    """
    if isinstance(answer, list):
        return answer
    found = answer.get(key)
    if isinstance(found, dict):
        found = found.get(key)
    if isinstance(found, list):
        return found
    if _is_row(answer):
        return [answer]
    lists = [each for each in answer.values() if isinstance(each, list) and each and all(map(_is_row, each))]
    return lists[0] if len(lists) == 1 else None


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and "sessionId" in value


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_SHOWN_KEYS = 20


def _instant(moment: datetime) -> str:
    """As getSessions wants it: to the millisecond, in GMT."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
