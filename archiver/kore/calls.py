"""Which calls took place: the pages of the platform's two listings, and what each of their rows says.

Sessions history (`getSessions`) shows all of a stretch of time, page by page, newest first, to the millisecond. Call details
(version 2) are in whole seconds and show ten pages of a hundred at most, of at most seven days. `archiver.kore.reader` makes
whole stretches of pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import quote

from archiver.errors import ApiDefect
from archiver.kore.client import KoreClient
from archiver.redact import redact
from archiver.session import MAX_USER_ID

PAGE = 100
"""Rows that a page has at most: the vendor's limit for call details, and what its samples ask getSessions for."""

MAX_PAGES = 10
"""Pages of call details that one stretch of time can show."""

SECOND = timedelta(seconds=1)
MILLISECOND = timedelta(milliseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What the vendor names (korevg, audiocodes, twiliovoice, IVR, and Voice in call details), and their like.
_VOICE = re.compile(r"korevg|audiocodes|voice|ivr", re.IGNORECASE)

_LONGEST_FACT = 500
_LOOKED_AT = 4 * _LONGEST_FACT
"""Characters of a fact that are looked through for secrets: what is kept, and what a secret in it may be longer."""
_LONGEST_ID = 1000
"""Characters; of all rows of a stretch the identities are in memory. A session ID has 200."""
_MOST_FACTS = 50

Draw = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Span:
    """From `start` (included) to `end` (excluded); both are aware."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Never negative."""
        return max(self.end - self.start, timedelta(0))

    def holds(self, moment: datetime) -> bool:
        """Whether it lies within."""
        return self.start <= moment < self.end


@dataclass(frozen=True)
class Call:
    """A call that the platform lists. `kind` is what it left: a recording or a voicemail. Call details know `started_at` and
    `ended_at` to the second. `facts` has the names of `CALL_FACTS` that were told.
    """

    session_id: str
    kind: str
    started_at: datetime
    ended_at: datetime | None = None
    user_id: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by in the archive of its bot."""
        return self.session_id, self.kind

    def joined(self, other: Call) -> Call:
        """The one call that two rows tell of, such as before and after it was passed on."""
        ends = [end for end in (self.ended_at, other.ended_at) if end is not None]
        return replace(
            other,
            started_at=min(self.started_at, other.started_at),
            ended_at=max(ends, default=None),
            user_id=other.user_id or self.user_id,
            facts={**self.facts, **other.facts},
        )


@dataclass(frozen=True)
class Row:
    """One entry of a listing: a call, or what else it is. `identity` is the same whenever it is listed."""

    identity: str
    call: Call | None = None
    other: str = ""
    """The channel, if it is not a voice channel."""
    unreadable: str = ""
    """Why it cannot be told which call it is."""


@dataclass(frozen=True)
class Page:
    """One answer: its rows, and of how many in all it speaks, if it does."""

    rows: list[Row]
    total: int | None
    more: bool = False
    """It says that there are more."""


class Source(Protocol):
    """One of the listings."""

    grain: timedelta
    """Stretches begin and end at multiples of it."""
    longest: timedelta
    """What one stretch can be."""
    wanted: int
    """Rows that a stretch should have: enough to fill its pages, few enough to be shown whole."""
    most: int
    """Rows that a stretch can show, or that are read before it is told to be too long."""
    shows_all: bool
    """Whether even the shortest stretch can be read to its end, however many rows it has."""

    async def page(self, span: Span, number: int, seen: int) -> Page:
        """Page `number` (from 0) of a stretch of which `seen` rows have been read. Raises KoreError."""


class SessionsHistory:
    """`getSessions` of one bot. Needs the scope Bot Sessions; counts on the bot's own limits."""

    name: str = "sessions"
    grain: timedelta = MILLISECOND
    longest: timedelta = timedelta(days=31)
    wanted: int = 5000
    most: int = 20_000
    shows_all: bool = True

    def __init__(self, client: KoreClient, draw: Draw) -> None:
        self._client = client
        self._draw = draw

    async def page(self, span: Span, number: int, seen: int) -> Page:
        last = span.end - MILLISECOND
        answer = await self._client.listing(
            f"/api/public/bot/{quote(self._client.bot.bot_id, safe='')}/getSessions",
            json={"skip": seen, "limit": PAGE, "dateFrom": _instant(span.start), "dateTo": _instant(last), "includeMeta": True},
            headers={},
            scope="Bot Sessions",
            draw=self._draw,
        )
        return await asyncio.to_thread(_page, answer, "sessions", "total", _session)


class CallDetails:
    """Call details, version 2, of one bot. Needs the scope SmartAssist Analytics; counts on the account's limits.

    Times are asked for in GMT, so that no clock change can hide an hour or show it twice.
    """

    name: str = "call_details"
    grain: timedelta = SECOND
    longest: timedelta = timedelta(days=7)
    wanted: int = 700
    most: int = PAGE * MAX_PAGES
    shows_all: bool = False

    def __init__(self, client: KoreClient, draw: Draw) -> None:
        self._client = client
        self._draw = draw

    async def page(self, span: Span, number: int, seen: int) -> Page:
        bot = self._client.bot
        answer = await self._client.listing(
            f"/agentassist/api/public/analytics/account/{quote(bot.account_id, safe='')}/v2/callDetails"
            f"?offset={number}&limit={PAGE}",
            json={
                "startDate": f"{span.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                "endDate": f"{(span.end - SECOND).astimezone(UTC):%Y-%m-%d %H:%M:%S}",
                "channels": ["voice"],
                "direction": "Both",
                "timeZoneOffset": 0,
                "selectedFields": ["skills", "customerinfo", "sessionleveltags"],
            },
            headers={"accountId": bot.account_id, "iId": bot.bot_id},
            scope="SmartAssist Analytics",
            draw=self._draw,
        )
        return await asyncio.to_thread(_page, answer, "data", "numResults", _detail)


def sources_of(client: KoreClient, *, sessions: Draw, details: Draw) -> list[SessionsHistory | CallDetails]:
    """Those that the bot's `discovery` names, the better one first: call details tell voicemails apart, and more of a call, but
    need an account. `sessions` and `details` draw for each.
    """
    history, calls = SessionsHistory(client, sessions), CallDetails(client, details)
    match client.bot.discovery:
        case "sessions":
            return [history]
        case "call_details":
            return [calls]
        case _:
            return [calls, history] if client.bot.account_id else [history]


# --- rows


def _page(answer: dict[str, Any], rows_key: str, total_key: str, read: Callable[[Mapping[str, Any]], Row]) -> Page:
    """What one answer says. Not for the event loop: all its texts are redacted, which a hostile one makes slow."""
    rows = answer.get(rows_key)
    if not isinstance(rows, list):
        keys = [_word(key) for key in answer][:20]
        raise ApiDefect(f"a listing without its list {rows_key!r}", hint=_ODD_HINT, answer_keys=keys)
    total = re.fullmatch(r"(\d{1,12})(\.0*)?", _word(answer.get(total_key)))
    made = [
        read(row) if isinstance(row, dict) else Row(_short(_word(row)), unreadable=f"a {_kind(row)}, not an object")
        for row in rows
    ]
    return Page(made, int(total[1]) if total else None, answer.get("moreAvailable") is True)


_ODD_HINT = "try again; if it stays so, the platform has changed its listing: tell the archiver's developers"


def _session(row: Mapping[str, Any]) -> Row:
    """One of getSessions. It does not say what the call left: a recording is what it is asked for."""
    facts = {"language": row.get("session_lang"), "tags": row.get("tags"), "conversation_id": row.get("conversationId")}
    return _row(row, "recording", row.get("start_time"), row.get("end_time"), facts, _word(row.get("sessionId")))


def _detail(row: Mapping[str, Any]) -> Row:
    """One of call details."""
    about = _table(row.get("metaInfo"))
    destinations = [_table(item) for item in _listed(row.get("destinations"))]
    agents = [_table(item.get("respondingAgent")) for item in destinations]
    facts = {
        "direction": row.get("Direction") or row.get("direction"),
        "caller": about.get("caller"),
        "callee": about.get("callee"),
        "agent": [agent for agent in agents if agent],
        "queue": [item["queueName"] for item in destinations if item.get("queueName")],
        "disposition": row.get("dispositions"),
        "conversation_id": row.get("conversationId"),
        "language": row.get("language"),
        "tags": row.get("sessionleveltags") or row.get("tags"),
    }
    kind = "voicemail" if _word(row.get("isVoicemail")).strip().lower() in ("yes", "true") else "recording"
    identity = f"{_word(row.get('sessionId'))} {_word(row.get('conversationId'))}"
    return _row(row, kind, row.get("sessionStartTime"), row.get("sessionEndTime"), facts, identity)


def _row(row: Mapping[str, Any], kind: str, start: Any, end: Any, facts: Mapping[str, Any], identity: str) -> Row:
    identity = _short(identity)
    channel = _word(row.get("channel"))
    if channel and not _VOICE.search(channel):
        return Row(_short(f"{channel} {identity}"), other=_fact(channel))
    session_id, started_at = row.get("sessionId"), _moment(start)
    if not isinstance(session_id, str) or not session_id.strip():
        return Row(_short(f"{identity} {_word(start)}"), unreadable="it names no session")
    if started_at is None:
        return Row(identity, unreadable=f"session {_fact(session_id)[:200]!r} does not say when it began")
    session_id = redact(_short(session_id.replace("\0", "\ufffd").encode("utf-8", "replace").decode()))
    user_id = row.get("userId")
    user = user_id if isinstance(user_id, str) and 0 < len(user_id) <= MAX_USER_ID and user_id.isprintable() else None
    user = None if user is not None and redact(user) != user else user
    told = {name: _bounded(value) for name, value in facts.items() if value not in (None, "", [], {})}
    return Row(identity, Call(session_id, kind, started_at, _moment(end), user, told))


def _short(identity: str) -> str:
    """What tells a row or a session from others, and is not long."""
    if len(identity) <= _LONGEST_ID:
        return identity
    return f"{_fact(identity)[:200]}...{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()}"


def _fact(text: str) -> str:
    return redact(text[:_LOOKED_AT])[:_LONGEST_FACT]


def _word(value: Any) -> str:
    """A value as one word. Of what has an inside only what it is: that may be deeper than Python can show."""
    if isinstance(value, dict | list):
        return f"({_kind(value)})"
    return "" if value is None else str(value)


def _kind(value: Any) -> str:
    return type(value).__name__


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _bounded(value: Any, depth: int = 0) -> Any:
    """What may be kept of a fact: nothing secret, nothing long, nothing deep."""
    match value:
        case str():
            return _fact(value)
        case bool() | int() | float():
            return value
        case list() if depth < 3:
            return [_bounded(item, depth + 1) for item in value[:_MOST_FACTS]]
        case dict() if depth < 3:
            return {_fact(str(key)): _bounded(item, depth + 1) for key, item in list(value.items())[:_MOST_FACTS]}
        case _:
            return _word(value)[:_LONGEST_FACT]


def _moment(value: Any) -> datetime | None:
    """A time of a listing: ISO 8601, in GMT if it has no zone, as was asked for; or Unix time, in seconds or milliseconds. None
    for what is no time of a call.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            found = EPOCH + timedelta(seconds=value if value < 1e11 else value / 1000)
        elif isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return found if 1970 <= found.year < 9999 else None


def _instant(moment: datetime) -> str:
    """As getSessions wants it: to the millisecond, in GMT."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
