"""What a row of a listing says of a call: when it was, and the facts that `discovery.keep` may keep of it. Rows are hostile until
read: nothing of one is longer, deeper or more than is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from archiver.kore.listings.calls import DEVELOPER, UNANSWERED, Call, Row
from archiver.kore.listings.values import (
    MAX_FACTS,
    bounded,
    fact_of,
    first_text,
    is_yes,
    list_of,
    moment_of,
    shortened,
    table_of,
    text_of,
    united,
    word_of,
)
from archiver.observe.redact import redact
from archiver.session import MAX_USER_ID

# What the vendor names (korevg, audiocodes, twiliovoice, IVR, and Voice in call details), and their like.
_VOICE = re.compile(r"korevg|audiocodes|voice|ivr", re.IGNORECASE)


def read_session(row: Mapping[str, Any], *, facts: bool = True) -> Row:
    """One of getSessions. It does not say what the call left: a recording is what it is asked for. Without `facts` only when it
    was, and whether a developer made it.
    """
    identity = word_of(row.get("sessionId"))
    if not facts:
        return _row(row, "recording", row.get("start_time"), row.get("end_time"), _developer(row), identity)
    told = {
        "language": row.get("session_lang"),
        "tags": row.get("tags"),
        "conversation_id": row.get("conversationId"),
        **_developer(row),
    }
    return _row(row, "recording", row.get("start_time"), row.get("end_time"), told, identity)


def _developer(row: Mapping[str, Any]) -> dict[str, Any]:
    return {DEVELOPER: is_yes(row.get("isDeveloper")) or None}


def read_detail(row: Mapping[str, Any], *, facts: bool = True) -> Row:
    """One of call details, or of interaction details. Without `facts` as `read_session`."""
    start, end = row.get("sessionStartTime"), row.get("sessionEndTime")
    kind = "voicemail" if is_yes(row.get("isVoicemail")) else "recording"
    identity = f"{word_of(row.get('sessionId'))} {word_of(row.get('conversationId'))}"
    return _row(row, kind, start, end, _details(row, start, end) if facts else _developer(row), identity)


def _details(row: Mapping[str, Any], start: Any, end: Any) -> dict[str, Any]:
    destinations = [table_of(item) for item in list_of(row.get("destinations"))]
    agents = [agent for item in destinations for agent in _agents(item)]
    direction = row.get("Direction") or row.get("direction")
    caller, callee = _numbers(row, word_of(direction))
    remarks = row.get("dispositionRemarks") or table_of(row.get("dispositions")).get("remarks")
    facts = {
        "direction": direction,
        "caller": caller,
        "callee": callee,
        "agent": _people(agents),
        "consulted": _people(each for agent in agents for each in list_of(agent.get("ConsultingAgents"))),
        "joined": _people(each for agent in agents for each in list_of(agent.get("JoinedUsers"))),
        "transferred_to": united(text_of(item.get("ExternalTransferDestination")) for item in [*destinations, *agents, row]),
        "queue": united(text_of(item.get("queueName")) for item in destinations),
        "disposition": united(_dispositions(row.get("dispositions"))),
        "disposition_remarks": remarks,
        "campaign": _campaign(row),
        "conversation_id": row.get("conversationId"),
        "language": row.get("language"),
        "tags": row.get("sessionleveltags") or row.get("tags"),
        **_developer(row),
    }
    status = text_of(table_of(row.get("campaigninfo")).get("contactStatus"))
    if not facts["campaign"]:
        facts["disposition"] = facts["disposition"] or united([status])
    elif not agents and moment_of(start) is not None and moment_of(start) == moment_of(end):
        # Without an end it may still ring, and a dial that is not known to be over is asked for as any other call.
        facts[UNANSWERED] = _NOT_ANSWERED.get(re.sub(r"[\s_-]", "", status.lower()))
    return facts


_NOT_ANSWERED = {"noanswer": "no-answer", "busy": "busy", "failed": "failed"}


def _agents(destination: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those who spoke at one stop of a call. A queue names who answered, and who did not; else the stop is the agent itself."""
    segment = word_of(destination.get("destinationType")).strip().lower() == "agentsegment"
    asked = [table_of(each) for each in list_of(destination.get("nonRespondingAgents"))]
    # By the vendor's page these can be among those who did not answer.
    answered = [agent for agent in asked if agent.get("acceptedTime")]
    found = [table_of(destination.get("respondingAgent")), *answered, destination if segment else {}]
    return [agent for agent in found if agent and not agent.get("nonResponseEvent")]


def _people(entries: Iterable[Any]) -> list[Any]:
    """Who they are, and nothing else that is said of them. One without an ID and a name is an outside number, or a text."""
    named = (
        {key: text for key in ("agentId", "userId", "name", "email") if (text := text_of(entry.get(key)))}
        if isinstance(entry, dict)
        else {"name": text_of(entry)}
        for entry in entries
    )
    return united(person for person in named if any(person.values()))


def _numbers(row: Mapping[str, Any], direction: str) -> tuple[str, str]:
    """Caller and callee, from wherever they stand; the other side of an outbound call is its callee."""
    about = table_of(row.get("metaInfo"))
    customer, ours = about.get("endUserNumber"), about.get("dialedNumber")
    customers, centers = [customer], [ours]
    for info in (table_of(row.get("customerinfo")), table_of(about.get("customerinfo"))):
        customers.append(info.get("CustomerPhone"))
        centers.append(info.get("CenterPhone"))
    callers, callees = (centers, customers) if direction.strip().lower() == "outbound" else (customers, centers)
    return first_text(about.get("caller"), *callers), first_text(about.get("callee"), *callees)


def _dispositions(value: Any) -> Iterable[str]:
    """The words for how a call ended, out of the shapes that the vendor has for them; never what was remarked of it."""
    match value:
        case list():
            for each in value[:MAX_FACTS]:
                # An object in a list has no list of its own: nothing is deeper than this.
                yield from [_disposition(each)] if isinstance(each, dict) else [text_of(each)]
        case dict():
            yield _disposition(value)
            yield from [
                _disposition(table_of(each)) or text_of(each) for each in list_of(value.get("dispositionSets"))[:MAX_FACTS]
            ]
        case _:
            yield text_of(value)


def _disposition(value: Mapping[str, Any]) -> str:
    return first_text(value.get("name"), value.get("disposition"), value.get("status"))


def _campaign(row: Mapping[str, Any]) -> dict[str, str]:
    """The campaign that dialled, if one did. Ordinary calls have a `campaigninfo`, too, with nothing in it but a disposition."""
    info = table_of(row.get("campaigninfo"))
    name = first_text(info.get("campaignName"), table_of(row.get("metaInfo")).get("campaignName"))
    identity = first_text(info.get("campaignId"), info.get("campaignInstanceId"))
    if not name and not identity:
        return {}
    told = {"name": name, "id": identity, "contact_status": text_of(info.get("contactStatus"))}
    return {key: text for key, text in told.items() if text}


def _row(row: Mapping[str, Any], kind: str, start: Any, end: Any, facts: Mapping[str, Any], identity: str) -> Row:
    identity = shortened(identity)
    channel = word_of(row.get("channel"))
    if channel and not _VOICE.search(channel):
        return Row(shortened(f"{channel} {identity}"), other=fact_of(channel))
    session_id, started_at = row.get("sessionId"), moment_of(start)
    if not isinstance(session_id, str) or not session_id.strip():
        return Row(shortened(f"{identity} {word_of(start)}"), unreadable="it names no session")
    if started_at is None:
        return Row(identity, unreadable=f'session "{fact_of(session_id)[:200]}" does not say when it began')
    session_id = redact(shortened(session_id.replace("\0", "\ufffd").encode("utf-8", "replace").decode()))
    user_id = row.get("userId")
    user = user_id if isinstance(user_id, str) and 0 < len(user_id) <= MAX_USER_ID and user_id.isprintable() else None
    user = None if user is not None and redact(user) != user else user
    told = {name: bounded(value) for name, value in facts.items() if value not in (None, "", [], {})}
    return Row(identity, Call(session_id, kind, started_at, moment_of(end), user, told))
