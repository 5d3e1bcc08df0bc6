"""One call as each listing shows it, in the shape of the vendor's sample rows.

Made up: what a running call has for an end (null in the sessions history; left out of the call details), its `sessionStatus`
("active") and `finalStatus` ("OPEN"); how many messages and tasks there were; when an agent took over; the fields of a joined
user; the `channel` of a chat in the call details (its own name).
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from archiver.simulator.calls import EPOCH, MILLISECOND

if TYPE_CHECKING:
    from collections.abc import Collection

    from archiver.simulator.calls import Call

_IDS = uuid.UUID("0d0b7c44-5b1e-4b8c-9c39-2b1f5ef0c7f2")
_ORG = f"o-{uuid.uuid5(_IDS, 'org')}"


def session_row(call: Call, bot_id: str, *, developer: bool | int, with_tags: bool = True) -> dict[str, Any]:
    """A row of the sessions history. Without `with_tags` the session's tags are left out, as of old sessions."""
    tags: Any = call.tags
    if tags is None:
        tags = {"userTags": [], "sessionTags": [], "altText": []}
    if isinstance(tags, dict) and not with_tags:
        tags = {key: value for key, value in tags.items() if key != "sessionTags"}
    return {
        "sessionId": call.session_id,
        "botId": bot_id,
        "channel": call.channel,
        "userId": _user_id(call),
        "start_time": _iso(call.started_ms),
        "end_time": None if call.ended_ms is None else _iso(call.ended_ms),
        "session_lang": [call.language],
        "sessionType": "interactive" if call.interactive else "non-interactive",
        "sessionStatus": "active" if call.ended_ms is None else "closed",
        "isDeveloper": developer,
        "tags": tags,
        "noOfMessagesExchanged": 4 if call.interactive else 1,
        "noOfTasksExecuted": 1 if call.interactive else 0,
        "containmentType": call.containment,
    }


def details_row(call: Call, bot_id: str, offset_minutes: int, selected: Collection[str]) -> dict[str, Any]:
    """A row of the call details. Of what has to be asked for by name there is what is in `selected`."""
    end = {} if call.ended_ms is None else {"sessionEndTime": _local(call.ended_ms, offset_minutes)}
    times = {"sessionStartTime": _local(call.started_ms, offset_minutes), **end}
    who = {"botId": bot_id, "userId": _user_id(call), "channelSpecificUserId": f"{_user_id(call)}@phone", "orgId": _ORG}
    common = {
        "sessionId": call.session_id,
        "channel": "Voice" if call.is_voice else call.channel,
        **times,
        **who,
        "reason": "",
        "errorDetails": "",
        "automationBotIDs": [bot_id],
    }
    if call.ended_at_bot:
        return common | {"disconnectingEvent": "", "smartStatus": "CLOSED AT BOT", "finalStatus": "BotResolved"}
    status = "CLOSED" if end else "OPEN"
    optional = {
        "skills": [],
        "customerinfo": _customer(call, known=call.numbers_at == "customerinfo"),
        "userleveltags": [],
        "sessionleveltags": call.tags.get("sessionTags", []) if isinstance(call.tags, dict) else [],
        "campaigninfo": _campaign(call, offset_minutes),
    }
    return common | {
        "conversationId": call.conversation_id or f"c-{uuid.uuid5(_IDS, call.session_id)}",
        "isVoicemail": "YES" if call.voicemail else "NO",
        "Direction": call.direction,
        "smartStatus": status,
        "finalStatus": status,
        "disconnectingEvent": "" if call.unanswered or not end else "Agent Closed",
        "metaInfo": _meta(call),
        "destinations": _destinations(call, offset_minutes),
        "dispositions": call.dispositions,
        "dispositionRemarks": call.disposition_remarks,
        **{key: value for key, value in optional.items() if key in selected and value is not None},
    }


def _meta(call: Call) -> dict[str, Any]:
    customer, center = _numbers(call)
    match call.numbers_at:
        case "metaInfo":
            return _given(caller=call.caller, callee=call.callee)
        case "endUserNumber":
            return _given(endUserNumber=customer, dialedNumber=center)
        case "metaInfo.customerinfo":
            return {"caller": "", "customerinfo": _customer(call, known=True)}
        case "customerinfo":
            return {"caller": "", "callee": ""}


def _customer(call: Call, *, known: bool) -> dict[str, str]:
    customer, center = _numbers(call) if known else (None, None)
    return {
        "CustomerPhone": customer or "",
        "CenterPhone": center or "",
        "CustomerFirstName": "",
        "CustomerLastName": "",
        "CustomerEmail": "",
    }


def _numbers(call: Call) -> tuple[str | None, str | None]:
    """The customer's number and the line's. Vendor: in the sample of a call out, the line is the caller and `dialedNumber`."""
    return (call.caller, call.callee) if call.direction == "Inbound" else (call.callee, call.caller)


def _campaign(call: Call, offset_minutes: int) -> dict[str, Any] | None:
    if call.campaign is None:
        return None if call.contact_status is None else {"attempt": "", "contactStatus": call.contact_status}
    return {
        "campaignName": call.campaign,
        "campaignId": f"cd-{uuid.uuid5(_IDS, call.campaign)}",
        "campaignInstanceId": f"cid-{uuid.uuid5(_IDS, 'instance ' + call.campaign)}",
        "campaignDialingListId": f"cdl-{uuid.uuid5(_IDS, 'list ' + call.campaign)}",
        "attempt": 1,
        "contactStatus": call.contact_status or "",
        "campaignRunDate": _local(call.started_ms, offset_minutes),
        "contactListName": [f"contacts of {call.campaign}"],
    }


def _destinations(call: Call, offset_minutes: int) -> list[dict[str, Any]]:
    """In order of time: the queue, with the agent who answered, unless that is an entry of its own; whom it was passed to."""
    entries: list[dict[str, Any]] = []
    agent = _segment(call, offset_minutes, agentId=call.agent_id, name=call.agent)
    if agent:
        agent["ConsultingAgents"] = [
            {**_assigned(call, offset_minutes), "name": name, "isMerged": False} for name in call.consulted
        ]
        agent["JoinedUsers"] = [{"name": name} for name in call.joined]
    if call.queue is not None or (agent and call.agent_at == "queue"):
        queue_id = None if call.queue is None else f"qu-{uuid.uuid5(_IDS, call.queue)}"
        entry = _given(queueId=queue_id, queueName=call.queue) | {"CallbackOpted": False}
        entry["EnterTime"] = _local(call.started_ms, offset_minutes)
        if agent and call.agent_at == "queue":
            entry["respondingAgent"] = agent
        entries.append({"destinationType": "QueueEntry", **entry})
    if agent and call.agent_at == "segment":
        entries.append(agent)
    if call.transferred_to is not None:
        entries.append(_segment(call, offset_minutes, name=call.transferred_to))
    return entries


def _segment(call: Call, offset_minutes: int, **who: str | None) -> dict[str, Any]:
    """An agent's part of a call; nothing where there was no agent."""
    given = _given(**who)
    if not given:
        return {}
    ended = {}
    if call.ended_ms is not None:
        seconds = (call.ended_ms - call.started_ms) // 1000
        ended = {"interactionEndTime": _local(call.ended_ms, offset_minutes), "interactionDuration": seconds}
    return {
        **given,
        "agentNotes": [],
        "destinationType": "AgentSegment",
        "status": "Answered",
        **_assigned(call, offset_minutes),
        **ended,
        "ConsultingAgents": [],
        "JoinedUsers": [],
    }


def _assigned(call: Call, offset_minutes: int) -> dict[str, str]:
    start = _local(call.started_ms, offset_minutes)
    return {"assignedAt": start, "acceptedTime": start}


def _given(**facts: Any) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}


def _user_id(call: Call) -> str:
    return call.user_id or f"u-{uuid.uuid5(_IDS, f'user {call.session_id}')}"


def _iso(moment_ms: int) -> str:
    return f"{EPOCH + moment_ms * MILLISECOND:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1000:03}Z"


def _local(moment_ms: int, offset_minutes: int) -> str:
    """Local time without its zone, in whole seconds."""
    return f"{EPOCH + moment_ms * MILLISECOND - timedelta(minutes=offset_minutes):%Y-%m-%dT%H:%M:%S}"
