"""Which calls took place: the pages of the platform's listings, and what each of their rows says.

Sessions history (`getSessions`) shows all of a stretch of time that is shorter than seven days, page by page, newest first, to
the millisecond. Call details (version 2) and interaction details are in whole seconds and show ten pages of a hundred at most,
of at most seven days. `archiver.kore.listings.reader` makes whole stretches of pages.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from archiver.errors import ApiDefect, NoListing
from archiver.kore.client import NO_LISTING_HINT, KoreClient
from archiver.observe.redact import redact
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

UNANSWERED = "unanswered"
"""The fact that nobody answered what a campaign dialled: "no-answer", "busy" or "failed". It has no recording."""

DEVELOPER = "developer"
"""The fact that the platform lists a session as a developer's test."""

OUR_REQUEST = (400, 412, 422)
"""What a platform says of a request that it does not understand, or not from this account."""

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
    `ended_at` to the second. `facts` has the names of `CALL_FACTS` that were told, and `UNANSWERED`.
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
        """The one call that two rows tell of, such as before and after it was passed on. Of each fact the earlier row's word
        stands, lists have what both say; it was answered if either row was.
        """
        first, last = (self, other) if self.started_at < other.started_at else (other, self)
        ends = [end for end in (self.ended_at, other.ended_at) if end is not None]
        facts = {**last.facts, **first.facts}
        for name in first.facts.keys() & last.facts.keys():
            if isinstance(first.facts[name], list) and isinstance(last.facts[name], list):
                facts[name] = _united([*first.facts[name], *last.facts[name]])
        if UNANSWERED not in first.facts or UNANSWERED not in last.facts:
            facts.pop(UNANSWERED, None)
        return replace(first, ended_at=max(ends, default=None), user_id=first.user_id or last.user_id, facts=facts)


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
        return await asyncio.to_thread(_page, answer, "sessions", "total", _session)


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
        return await asyncio.to_thread(_page, answer, "data", "numResults", _detail)


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


def still_in_use(sources: list[N], told: Collection[str]) -> list[N]:
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


# --- rows


def _page(answer: Any, rows_key: str, total_key: str, read: Callable[[Mapping[str, Any]], Row]) -> Page:
    """What one answer says. Not for the event loop: all its texts are redacted, which a hostile one makes slow."""
    about = _table(answer)
    total = re.fullmatch(r"(\d{1,12})(\.0*)?", _word(about.get(total_key)))
    rows = _rows(answer, rows_key)
    if rows is None and total and not int(total[1]) and not about.get(rows_key) and not about.get("errors"):
        rows = []
    if rows is None:
        names = ", ".join(key if _NAME.fullmatch(key) else "(another)" for key in list(about)[:_SHOWN_KEYS])
        raise NoListing(
            f"a listing without its list {rows_key!r}: an object with {f'the keys {names}' if names else 'nothing in it'}",
            hint=NO_LISTING_HINT,
        )
    made = [
        read(row) if isinstance(row, dict) else Row(_short(_word(row)), unreadable=f"a {_kind(row)}, not an object")
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


def _session(row: Mapping[str, Any]) -> Row:
    """One of getSessions. It does not say what the call left: a recording is what it is asked for."""
    facts = {
        "language": row.get("session_lang"),
        "tags": row.get("tags"),
        "conversation_id": row.get("conversationId"),
        DEVELOPER: _yes(row.get("isDeveloper")) or None,
    }
    return _row(row, "recording", row.get("start_time"), row.get("end_time"), facts, _word(row.get("sessionId")))


def _detail(row: Mapping[str, Any]) -> Row:
    """One of call details, or of interaction details."""
    start, end = row.get("sessionStartTime"), row.get("sessionEndTime")
    destinations = [_table(item) for item in _listed(row.get("destinations"))]
    agents = [agent for item in destinations for agent in _agents(item)]
    direction = row.get("Direction") or row.get("direction")
    caller, callee = _numbers(row, _word(direction))
    remarks = row.get("dispositionRemarks") or _table(row.get("dispositions")).get("remarks")
    facts = {
        "direction": direction,
        "caller": caller,
        "callee": callee,
        "agent": _people(agents),
        "consulted": _people(each for agent in agents for each in _listed(agent.get("ConsultingAgents"))),
        "joined": _people(each for agent in agents for each in _listed(agent.get("JoinedUsers"))),
        "transferred_to": _united(_text(item.get("ExternalTransferDestination")) for item in [*destinations, *agents, row]),
        "queue": _united(_text(item.get("queueName")) for item in destinations),
        "disposition": _united(_dispositions(row.get("dispositions"))),
        "disposition_remarks": remarks,
        "campaign": _campaign(row),
        "conversation_id": row.get("conversationId"),
        "language": row.get("language"),
        "tags": row.get("sessionleveltags") or row.get("tags"),
        DEVELOPER: _yes(row.get("isDeveloper")) or None,
    }
    status = _text(_table(row.get("campaigninfo")).get("contactStatus"))
    if not facts["campaign"]:
        facts["disposition"] = facts["disposition"] or _united([status])
    elif not agents and _moment(start) is not None and _moment(start) == _moment(end):
        # Without an end it may still ring, and a dial that is not known to be over is asked for as any other call.
        facts[UNANSWERED] = _NOT_ANSWERED.get(re.sub(r"[\s_-]", "", status.lower()))
    kind = "voicemail" if _yes(row.get("isVoicemail")) else "recording"
    identity = f"{_word(row.get('sessionId'))} {_word(row.get('conversationId'))}"
    return _row(row, kind, start, end, facts, identity)


_NOT_ANSWERED = {"noanswer": "no-answer", "busy": "busy", "failed": "failed"}


def _agents(destination: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those who spoke at one stop of a call. A queue names who answered, and who did not; else the stop is the agent itself."""
    segment = _word(destination.get("destinationType")).strip().lower() == "agentsegment"
    asked = [_table(each) for each in _listed(destination.get("nonRespondingAgents"))]
    # By the vendor's page these can be among those who did not answer.
    answered = [agent for agent in asked if agent.get("acceptedTime")]
    found = [_table(destination.get("respondingAgent")), *answered, destination if segment else {}]
    return [agent for agent in found if agent and not agent.get("nonResponseEvent")]


def _people(entries: Iterable[Any]) -> list[Any]:
    """Who they are, and nothing else that is said of them. One without an ID and a name is an outside number, or a text."""
    named = (
        {key: text for key in ("agentId", "userId", "name", "email") if (text := _text(entry.get(key)))}
        if isinstance(entry, dict)
        else {"name": _text(entry)}
        for entry in entries
    )
    return _united(person for person in named if any(person.values()))


def _united(values: Iterable[Any]) -> list[Any]:
    """Each once, in order, without what is empty. Of one agent all that is said of them together."""
    united: list[Any] = []
    for value in values:
        who = value.get("agentId") if isinstance(value, dict) else None
        same = [n for n, known in enumerate(united) if known == value or (who and _table(known).get("agentId") == who)]
        if not same and value not in (None, "", [], {}):
            united.append(value)
        elif same and who:
            united[same[0]] = {**value, **united[same[0]]}
        if len(united) == _MOST_FACTS:
            break
    return united


def _numbers(row: Mapping[str, Any], direction: str) -> tuple[str, str]:
    """Caller and callee, from wherever they stand; the other side of an outbound call is its callee."""
    about = _table(row.get("metaInfo"))
    customer, ours = about.get("endUserNumber"), about.get("dialedNumber")
    customers, centers = [customer], [ours]
    for info in (_table(row.get("customerinfo")), _table(about.get("customerinfo"))):
        customers.append(info.get("CustomerPhone"))
        centers.append(info.get("CenterPhone"))
    callers, callees = (centers, customers) if direction.strip().lower() == "outbound" else (customers, centers)
    return _first(about.get("caller"), *callers), _first(about.get("callee"), *callees)


def _first(*values: Any) -> str:
    return next((text for text in map(_text, values) if text), "")


def _dispositions(value: Any) -> Iterable[str]:
    """The words for how a call ended, out of the shapes that the vendor has for them; never what was remarked of it."""
    match value:
        case list():
            for each in value[:_MOST_FACTS]:
                # An object in a list has no list of its own: nothing is deeper than this.
                yield from [_disposition(each)] if isinstance(each, dict) else [_text(each)]
        case dict():
            yield _disposition(value)
            yield from [_disposition(_table(each)) or _text(each) for each in _listed(value.get("dispositionSets"))[:_MOST_FACTS]]
        case _:
            yield _text(value)


def _disposition(value: Mapping[str, Any]) -> str:
    return _first(value.get("name"), value.get("disposition"), value.get("status"))


def _campaign(row: Mapping[str, Any]) -> dict[str, str]:
    """The campaign that dialled, if one did. Ordinary calls have a `campaigninfo`, too, with nothing in it but a disposition."""
    info = _table(row.get("campaigninfo"))
    name = _first(info.get("campaignName"), _table(row.get("metaInfo")).get("campaignName"))
    identity = _first(info.get("campaignId"), info.get("campaignInstanceId"))
    if not name and not identity:
        return {}
    told = {"name": name, "id": identity, "contact_status": _text(info.get("contactStatus"))}
    return {key: text for key, text in told.items() if text}


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


def _text(value: Any) -> str:
    """A value that should be a text or a number; empty for all else."""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _yes(value: Any) -> bool:
    """Whether a value means yes: the vendor's samples have true, 1 and "YES"."""
    return _word(value).strip().lower() in ("yes", "true", "1")


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
