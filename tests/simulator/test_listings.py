"""Both listings: the sessions history and the call details."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.simulator import history as history_module
from archiver.simulator.history import Call, History, HistoryScript
from archiver.simulator.platform import Simulator
from tests.simulator.conftest import Answer, Client
from tests.simulator.test_history import MADE, call

DAY = {"dateFrom": "2025-03-17", "dateTo": "2025-03-17"}


def ids(answer: Answer) -> list[str]:
    """The sessions of a page, in its order."""
    assert answer.status == 200, answer
    rows = answer.json["sessions" if "sessions" in answer.json else "data"]
    return [row["sessionId"] for row in rows]


WRONG = {"errors": [{"msg": "Validation errors/ Invalid arguments", "code": 412}]}


@pytest.fixture
def unlimited(sim: Simulator) -> Simulator:
    sim.settings.rate_limits = sim.settings.account_rate_limits = ()
    return sim


# The sessions history -------------------------------------------------------------------------------------


async def test_a_row_of_the_sessions_history(client: Client) -> None:
    fields = {"language": "de", "tags": ["vip"], "user_id": "u-1", "agent": "Ada", "channel": "audiocodes"}
    running = call("running", "10:00:00", ended_at=None)
    client.sim.set_history({"calls": [call("one", "09:00:00.250", **fields), running, call("chat", "08:00:00", channel="web")]})
    answer = await client.sessions(DAY | {"skip": 0, "limit": 100})
    assert (answer.json["total"], answer.json["moreAvailable"]) == (3, False)
    first, second, third = answer.json["sessions"]
    assert (first["sessionId"], first["end_time"], first["sessionStatus"]) == ("running", None, "active")
    assert second == {
        "sessionId": "one",
        "botId": client.sim.bot_id,
        "channel": "audiocodes",
        "userId": "u-1",
        "start_time": "2025-03-17T09:00:00.250Z",
        "end_time": "2025-03-17T09:00:01.750Z",
        "session_lang": ["de"],
        "sessionType": "interactive",
        "sessionStatus": "closed",
        "isDeveloper": False,
        "tags": ["vip"],
        "noOfMessagesExchanged": 4,
        "noOfTasksExecuted": 1,
        "containmentType": "agent",
    }
    assert (third["sessionId"], third["channel"]) == ("chat", "web")
    assert third["tags"] == {"userTags": [], "sessionTags": [], "altText": []}
    assert answer.json["invalidSessions"] == []


async def test_pages_of_the_sessions_history_are_newest_first_and_complete(client: Client) -> None:
    client.sim.set_history({"made": MADE | {"calls": 250, "other_channels": 30}})
    pages = [await client.sessions(DAY | {"skip": skip, "limit": 100}) for skip in (0, 100, 200, 300)]
    assert [len(ids(page)) for page in pages] == [100, 100, 50, 0]
    assert [page.json["moreAvailable"] for page in pages] == [True, True, False, False]
    assert {page.json["total"] for page in pages} == {250}
    starts = [row["start_time"] for page in pages for row in page.json["sessions"]]
    assert starts == sorted(starts, reverse=True)
    listed = {each for page in pages for each in ids(page)}
    assert len(listed) == 250
    assert {each.session_id for each in client.sim.calls()} < listed


@pytest.mark.parametrize(
    ("window", "found"),
    [
        ({"dateFrom": "2025-03-17", "dateTo": "2025-03-17"}, ["last", "middle", "first"]),
        ({"dateFrom": "2025-03-16", "dateTo": "2025-03-16"}, ["before"]),
        ({"dateFrom": "2025-03-17T00:00:00.001Z", "dateTo": "2025-03-17"}, ["last", "middle"]),
        ({"dateFrom": "2025-03-17T09:00:00.500Z", "dateTo": "2025-03-17T09:00:00.500Z"}, ["middle"]),
        ({"dateFrom": "2025-03-17T09:00:00.5Z", "dateTo": "2025-03-17T23:59:59.998Z"}, ["middle"]),
        ({"dateFrom": "2025-03-17T09:00:00.501Z", "dateTo": "2025-03-18T00:00:00.000Z"}, ["after", "last"]),
        ({"dateTo": "2025-03-17T09:00:00.499Z"}, ["first", "before"]),
        ({"dateTo": "2025-03-10"}, []),
    ],
)
async def test_both_bounds_are_included_to_the_millisecond(client: Client, window: dict[str, Any], found: list[str]) -> None:
    calls = [call("first", "00:00:00"), call("middle", "09:00:00.500"), call("last", "23:59:59.999")]
    calls.append(call("before", started_at="2025-03-16T23:59:59.999Z"))
    calls.append(call("after", started_at="2025-03-18T00:00:00Z", ended_at=None))
    client.sim.set_history({"calls": calls})
    assert ids(await client.sessions(window)) == found


async def test_without_dates_it_is_the_last_seven_days(client: Client) -> None:
    now = datetime.now(UTC)
    starts = {"now": now, "six": now - timedelta(days=6, hours=23), "seven": now - timedelta(days=7, seconds=1)}
    client.sim.set_history({"calls": [{"session_id": each, "started_at": at.isoformat()} for each, at in starts.items()]})
    assert ids(await client.sessions()) == ["now", "six"]


async def test_given_sessions_can_be_looked_up(client: Client) -> None:
    hidden = call("hidden", appears_after=9)
    client.sim.set_history({"calls": [call("a", "08:00:00"), call("b"), call("c", channel="web"), hidden], "made": MADE})
    made = client.sim.calls(datetime(2025, 3, 17, 10, tzinfo=UTC))[0].session_id
    answer = await client.sessions({"sessionId": ["b", "unknown", "a", "hidden", "b", made]})
    assert ids(answer) == [made, "b", "a"]
    assert (answer.json["total"], answer.json["moreAvailable"]) == (3, False)
    assert (await client.sessions({"sessionId": ["x"] * 50})).json["sessions"] == []


@pytest.mark.parametrize(("containment", "found"), [("agent", ["b"]), ("selfService", ["a"]), ("dropOff", ["c"])])
async def test_the_sessions_history_can_be_filtered_by_containment(client: Client, containment: str, found: list[str]) -> None:
    client.sim.set_history({"calls": [call("a"), call("b", agent="Ada"), call("c", voicemail=True)]})
    answer = await client.sessions(DAY, query=f"?containmentType={containment}")
    assert (ids(answer), answer.json["total"]) == (found, 1)


async def test_the_total_of_the_sessions_history_can_be_wrong(client: Client) -> None:
    client.sim.set_history({"calls": [call("a"), call("b")]})
    client.sim.alter({"session_totals": "wrong"})
    answer = await client.sessions(DAY | {"skip": 1})
    assert (answer.json["total"], answer.json["moreAvailable"]) == (9, False)


@pytest.mark.parametrize(
    ("body", "query", "says"),
    [
        ({"limit": 101}, "", "limit"),
        ({"limit": 0}, "", "limit"),
        ({"limit": "10"}, "", "limit"),
        ({"skip": -1}, "", "skip"),
        ({"dateFrom": "17.03.2025"}, "", "dateFrom"),
        ({"dateFrom": "2025-03-32"}, "", "dateFrom"),
        ({"dateFrom": "2025-03-17T09:00:00Z"}, "", "dateFrom"),
        ({"dateTo": "2025-03-17T09:00:00.000+01:00"}, "", "dateTo"),
        ({"dateFrom": "2025-03-18", "dateTo": "2025-03-17"}, "", "dateFrom is after dateTo"),
        ({"sessionId": ["x"] * 51}, "", "sessionId"),
        ({"datefrom": "2025-03-17"}, "", "datefrom: Extra inputs"),
        ({}, "?containmentType=agents", "containmentType"),
        (b"[]", "", "not a JSON object"),
        (b"{", "", "Expecting"),
        (b"\xff", "", "decode"),
    ],
)
async def test_a_wrong_question_to_the_sessions_history_is_a_412(client: Client, body: Any, query: str, says: str) -> None:
    answer = await client.sessions(body, query=query)
    assert (answer.status, answer.json) == (412, WRONG)
    report = client.sim.report()
    assert says in report["listings"]["last_refusal"]
    assert (report["listings"]["get_sessions"], report["listings"]["refused"]) == (1, 1)
    assert report["listings"]["max_in_window"]["minute"] == 1


# The call details -----------------------------------------------------------------------------------------


async def test_a_row_of_the_call_details(client: Client) -> None:
    fields = {
        "caller": "+15550100",
        "callee": "+15550199",
        "agent": "Ada",
        "agent_id": "a-1",
        "queue": "Claims",
        "dispositions": ["Resolved"],
        "conversation_id": "c-1",
        "user_id": "u-1",
        "direction": "Outbound",
    }
    client.sim.set_history({"calls": [call("one", "12:37:00.999", **fields), call("two", ended_at=None, voicemail=True)]})
    selected = ["skills", "userleveltags"]
    answer = await client.details({"channels": ["voice"], "direction": "Both", "timeZoneOffset": 0, "selectedFields": selected})
    first, second = answer.json["data"]
    assert first == {
        "conversationId": "c-1",
        "sessionId": "one",
        "channel": "Voice",
        "isVoicemail": "NO",
        "Direction": "Outbound",
        "sessionStartTime": "2025-03-17T12:37:00",
        "sessionEndTime": "2025-03-17T12:37:02",
        "finalStatus": "CLOSED",
        "smartStatus": "CLOSED",
        "reason": "",
        "disconnectingEvent": "Agent Closed",
        "errorDetails": "",
        "botId": client.sim.bot_id,
        "userId": "u-1",
        "channelSpecificUserId": "u-1@phone",
        "orgId": first["orgId"],
        "automationBotIDs": [client.sim.bot_id],
        "metaInfo": {"caller": "+15550100", "callee": "+15550199"},
        "destinations": [
            {
                "destinationType": "QueueEntry",
                "queueId": first["destinations"][0]["queueId"],
                "queueName": "Claims",
                "CallbackOpted": False,
                "EnterTime": "2025-03-17T12:37:00",
                "respondingAgent": {
                    "agentId": "a-1",
                    "name": "Ada",
                    "agentNotes": [],
                    "destinationType": "AgentSegment",
                    "status": "Answered",
                    "assignedAt": "2025-03-17T12:37:00",
                    "acceptedTime": "2025-03-17T12:37:00",
                    "interactionEndTime": "2025-03-17T12:37:02",
                    "interactionDuration": 1,
                    "ConsultingAgents": [],
                    "JoinedUsers": [],
                },
            }
        ],
        "dispositions": ["Resolved"],
        "dispositionRemarks": [],
        "skills": [],
        "userleveltags": [],
    }
    assert "sessionEndTime" not in second
    assert (second["isVoicemail"], second["finalStatus"], second["destinations"]) == ("YES", "OPEN", [])
    assert second["conversationId"].startswith("c-")
    assert second["userId"].startswith("u-")


async def test_an_agent_can_be_a_destination_of_its_own_and_so_is_whom_the_call_was_passed_to(client: Client) -> None:
    shared: dict[str, Any] = {"agent": "Ada", "queue": "Claims", "consulted": ["+15550142"], "joined": ["Grace"]}
    passed_on = shared | {"transferred_to": "Alan", "agent_at": "segment"}
    client.sim.set_history({"calls": [call("queue", **shared), call("segment", **passed_on), call("direct", agent="Ken")]})
    rows = {row["sessionId"]: row["destinations"] for row in (await client.details()).json["data"]}
    assert [entry["destinationType"] for entry in rows["segment"]] == ["QueueEntry", "AgentSegment", "AgentSegment"]
    assert "respondingAgent" not in rows["segment"][0]
    assert [entry["name"] for entry in rows["segment"][1:]] == ["Ada", "Alan"]
    [entry] = rows["queue"]
    for agent in (entry["respondingAgent"], rows["segment"][1]):
        assert [(each["name"], each["isMerged"]) for each in agent["ConsultingAgents"]] == [("+15550142", False)]
        assert agent["JoinedUsers"] == [{"name": "Grace"}]
    assert rows["direct"][0]["respondingAgent"]["name"] == "Ken"


@pytest.mark.parametrize(
    ("numbers_at", "meta", "top"),
    [
        ("metaInfo", {"caller": "+1", "callee": "+2"}, {}),
        ("endUserNumber", {"endUserNumber": "+2", "dialedNumber": "+1"}, {}),
        ("customerinfo", {"caller": "", "callee": ""}, {"CustomerPhone": "+2", "CenterPhone": "+1"}),
        ("metaInfo.customerinfo", {"caller": "", "customerinfo": {"CustomerPhone": "+2", "CenterPhone": "+1"}}, {}),
    ],
)
async def test_the_numbers_of_a_call_stand_in_one_of_four_places(
    client: Client, numbers_at: str, meta: dict[str, Any], top: dict[str, str]
) -> None:
    """Of a call out, the line is the caller."""
    client.sim.set_history({"calls": [call("one", numbers_at=numbers_at, caller="+1", callee="+2", direction="Outbound")]})
    names = {"CustomerFirstName": "", "CustomerLastName": "", "CustomerEmail": ""}
    [row] = (await client.details({"selectedFields": ["customerinfo"]})).json["data"]
    assert row["customerinfo"] == {"CustomerPhone": "", "CenterPhone": ""} | top | names
    if "customerinfo" in meta:
        meta = meta | {"customerinfo": meta["customerinfo"] | names}
    assert row["metaInfo"] == meta
    [row] = (await client.details()).json["data"]
    assert "customerinfo" not in row


async def test_a_campaigns_dial_that_nobody_answered_has_no_recording(client: Client) -> None:
    at = "2025-03-17T09:00:00Z"
    dial = {"campaign": "Renewals", "contact_status": "no-answer"}
    client.sim.set_history(
        {"calls": [call("dial", ended_at=at, **dial), call("answered", **dial), call("plain", contact_status="Resolved")]}
    )
    rows = {row["sessionId"]: row for row in (await client.details({"selectedFields": ["campaigninfo"]})).json["data"]}
    assert rows["dial"]["sessionStartTime"] == rows["dial"]["sessionEndTime"]
    assert (rows["dial"]["campaigninfo"]["campaignName"], rows["dial"]["campaigninfo"]["contactStatus"]) == (
        "Renewals",
        "no-answer",
    )
    assert rows["plain"]["campaigninfo"] == {"attempt": "", "contactStatus": "Resolved"}
    statuses = {each: (await client.ask(each)).json["status"] for each in rows}
    assert statuses == {"dial": "media_unavailable", "answered": "success", "plain": "success"}


async def test_what_ended_at_the_bot_is_in_the_interaction_details_alone(client: Client) -> None:
    client.sim.set_history({"calls": [call("bot", ended_at_bot=True), call("agent", agent="Ada")]})
    assert ids(await client.details()) == ["agent"]
    assert ids(await client.details(name="calldetails")) == ["agent"]
    assert sorted(ids(await client.sessions(DAY))) == ["agent", "bot"]
    rows = {row["sessionId"]: row for row in (await client.details(name="interactionDetails")).json["data"]}
    assert (rows["bot"]["finalStatus"], rows["bot"]["smartStatus"]) == ("BotResolved", "CLOSED AT BOT")
    assert not {"conversationId", "destinations", "metaInfo", "isVoicemail"} & set(rows["bot"])
    assert (rows["agent"]["finalStatus"], rows["agent"]["isVoicemail"]) == ("CLOSED", "NO")
    report = client.sim.report()["listings"]
    assert (report["call_details"], report["interaction_details"]) == (2, 1)


async def test_listings_that_the_account_does_not_have_are_not_found(client: Client) -> None:
    client.sim.alter({"listings": ["interactionDetails"]})
    answers = [await client.sessions(DAY), await client.details(), await client.details(name="interactionDetails")]
    assert [answer.status for answer in answers] == [404, 404, 200]


async def test_the_sessions_history_refuses_seven_days(client: Client) -> None:
    client.sim.set_history({"calls": [call("one")]})
    whole = {"dateFrom": "2025-03-11T00:00:00.000Z", "dateTo": "2025-03-18T00:00:00.000Z"}
    assert (await client.sessions(whole)).json == WRONG
    assert ids(await client.sessions(whole | {"dateTo": "2025-03-17T23:59:59.999Z"})) == ["one"]
    assert ids(await client.sessions({"dateFrom": "2025-03-11", "dateTo": "2025-03-17"})) == ["one"]
    assert (await client.sessions({"dateFrom": "2025-03-11", "dateTo": "2025-03-18"})).json == WRONG
    assert ids(await client.sessions({"dateFrom": "2025-03-11"})) == ["one"]
    assert ids(await client.sessions({"dateFrom": "2025-03-09"})) == [], "seven days are what it means without dateTo"


async def test_an_encrypted_answer_has_no_list(client: Client) -> None:
    client.sim.set_history({"calls": [call("one")]})
    meta = (await client.sessions(DAY | {"includeMeta": True})).json
    assert ids(await client.sessions(DAY | {"includeMeta": False})) == ["one"]
    client.sim.alter({"encrypted_listings": True})
    for answer in (meta, (await client.sessions(DAY)).json, (await client.details()).json):
        assert set(answer) == {"encryptedData", "encryptedKey", "metadata"}


async def test_looking_sessions_up_tells_the_unknown_and_knows_no_old_tags(client: Client) -> None:
    tags = {"userTags": [], "sessionTags": [{"name": "vip", "value": "1"}], "altText": []}
    now = datetime.now(UTC)
    recent = {"session_id": "new", "started_at": now.isoformat(), "tags": tags}
    client.sim.set_history({"calls": [call("old", tags=tags), recent]})
    answer = await client.sessions(
        {"sessionId": ["old", "none", "new", "none"], "dateFrom": "2020-01-01", "dateTo": "2024-01-01"}
    )
    assert ids(answer) == ["new", "old"]
    assert answer.json["invalidSessions"] == ["none"]
    assert [row["tags"] for row in answer.json["sessions"]] == [tags, {"userTags": [], "altText": []}]
    assert (await client.sessions(DAY)).json["sessions"][0]["tags"] == tags


async def test_a_developers_test_is_told_as_a_boolean_or_a_number(client: Client) -> None:
    client.sim.set_history({"calls": [call("dev", developer=True, interactive=False), call("caller")]})
    rows = {row["sessionId"]: row for row in (await client.sessions(DAY)).json["sessions"]}
    assert (rows["dev"]["isDeveloper"], rows["caller"]["isDeveloper"]) == (True, False)
    assert (rows["dev"]["sessionType"], rows["dev"]["noOfMessagesExchanged"]) == ("non-interactive", 1)
    client.sim.alter({"developer_flag": "number"})
    flags = [row["isDeveloper"] for row in (await client.sessions(DAY)).json["sessions"]]
    assert sorted(flags) == [0, 1]
    assert not any(isinstance(flag, bool) for flag in flags)


async def test_a_listing_can_ignore_its_window_or_repeat_its_page(client: Client) -> None:
    client.sim.set_history({"calls": [call(each, f"09:00:0{at}") for at, each in enumerate("abc")]})
    client.sim.alter({"listing_fault": "ignores_window"})
    nowhere = {"dateFrom": "2024-03-17", "dateTo": "2024-03-17"}
    assert ids(await client.sessions(nowhere)) == ["c", "b", "a"]
    assert ids(await client.details({"startDate": "2024-03-17 00:00:00", "endDate": "2024-03-17 00:00:01"})) == ["c", "b", "a"]
    client.sim.alter({"listing_fault": "repeats_page"})
    pages = [await client.sessions(DAY | {"limit": 1, "skip": skip}) for skip in range(4)]
    assert [ids(page) for page in pages] == [["c"]] * 4
    assert [page.json["moreAvailable"] for page in pages] == [True, True, False, False]
    assert [ids(await client.details(query=f"?offset={page}&limit=1")) for page in range(4)] == [["c"]] * 4


async def test_whether_there_is_an_eleventh_page_is_a_setting(client: Client, unlimited: Simulator) -> None:
    unlimited.set_history({"made": MADE | {"calls": 12}})
    found = {}
    for each in ("answered", "empty", "refused"):
        client.sim.alter({"eleventh_page": each})
        answer = await client.details(query="?offset=10&limit=1")
        found[each] = len(ids(answer)) if answer.status == 200 else answer.status
    assert found == {"answered": 1, "empty": 0, "refused": 412}
    assert (await client.details(query="?offset=11&limit=1")).status == 412


async def test_made_calls_have_all_kinds(client: Client, unlimited: Simulator) -> None:
    kinds = {"unanswered": 5, "ended_at_bot": 7, "developers": 3}
    unlimited.set_history({"made": MADE | {"calls": 90} | kinds})
    calls = unlimited.calls()
    assert sum(each.unanswered for each in calls) == 5
    assert all(each.direction == "Outbound" and each.campaign for each in calls if each.unanswered)
    assert sum(each.ended_at_bot for each in calls) == 7
    assert sum(each.developer for each in calls) == 3
    assert {each.agent_at for each in calls if each.agent} == {"queue", "segment"}
    assert any(each.transferred_to for each in calls)
    assert any(each.consulted for each in calls)
    for number, each in enumerate(calls):
        assert unlimited._listings.history._traits(number) == each.traits


async def test_times_are_local_and_whole_seconds_and_both_included(client: Client) -> None:
    times = {"before": "09:59:59.999", "first": "10:00:00.000", "last": "10:00:59.999", "after": "10:01:00.000"}
    client.sim.set_history({"calls": [call(each, at) for each, at in times.items()]})
    india = {"startDate": "2025-03-17 15:30:00", "endDate": "2025-03-17 15:30:59", "timeZoneOffset": -330}
    new_york = {"startDate": "2025-03-17 05:00:00", "endDate": "2025-03-17 05:00:59", "timeZoneOffset": 300}
    answer = await client.details(india)
    assert ids(answer) == ["last", "first"]
    assert answer.json["data"][1]["sessionStartTime"] == "2025-03-17T15:30:00"
    assert answer.json["data"][1]["sessionEndTime"] == "2025-03-17T15:30:01"
    answer = await client.details(new_york)
    assert ids(answer) == ["last", "first"]
    assert answer.json["data"][0]["sessionStartTime"] == "2025-03-17T05:00:59"
    second = {"startDate": "2025-03-17 10:00:59", "endDate": "2025-03-17 10:00:59"}
    assert ids(await client.details(second)) == ["last"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["chat", "out", "in"]),
        ({"channels": []}, ["chat", "out", "in"]),
        ({"channels": ["voice"]}, ["out", "in"]),
        ({"channels": ["chat"]}, ["chat"]),
        ({"channels": ["voice", "chat"]}, ["chat", "out", "in"]),
        ({"direction": "Inbound"}, ["chat", "in"]),
        ({"channels": ["voice"], "direction": "Outbound"}, ["out"]),
    ],
)
async def test_the_call_details_can_be_filtered(client: Client, body: dict[str, Any], found: list[str]) -> None:
    calls = [
        call("in", "08:00:00"),
        call("out", direction="Outbound", channel="IVR"),
        call("chat", "10:00:00", channel="msteams"),
    ]
    client.sim.set_history({"calls": calls})
    assert ids(await client.details(body)) == found


async def test_a_window_shows_at_most_ten_pages_of_a_hundred(client: Client, unlimited: Simulator) -> None:
    unlimited.set_history({"made": MADE | {"calls": 1500}})
    pages = [await client.details(query=f"?offset={page}&limit=100") for page in range(10)]
    shown = [each for page in pages for each in ids(page)]
    newest = [each.session_id for each in reversed(unlimited.calls())]
    assert shown == newest[:1000]
    assert (await client.details(query="?offset=10&limit=100")).status == 412
    hour = {"startDate": "2025-03-17 03:00:00", "endDate": "2025-03-17 03:59:59"}
    assert ids(await client.details(hour, query="?offset=9&limit=100")) == []


async def test_the_order_of_the_call_details_can_be_turned(client: Client, unlimited: Simulator) -> None:
    unlimited.set_history({"made": MADE | {"calls": 25}})
    unlimited.alter({"page_order": "oldest"})
    shown = [each for page in range(3) for each in ids(await client.details(query=f"?offset={page}&limit=10"))]
    assert shown == [each.session_id for each in unlimited.calls()]


async def test_what_num_results_counts_is_a_setting(client: Client) -> None:
    client.sim.set_history({"made": MADE | {"calls": 25}})
    counts = {}
    for each in ("page", "all", "wrong"):
        client.sim.alter({"num_results": each})
        counts[each] = [(await client.details(query=f"?offset={page}&limit=10")).json["numResults"] for page in (0, 2, 3)]
    assert counts == {"page": [10, 5, 0], "all": [25, 25, 25], "wrong": [32, 32, 32]}


@pytest.mark.parametrize(
    ("body", "query", "says"),
    [
        ({}, "?limit=101", "limit"),
        ({}, "?limit=0", "limit"),
        ({}, "?offset=10", "offset"),
        ({}, "?offset=-1", "offset"),
        ({}, "?page=1", "page"),
        ({"endDate": "2025-03-24 00:00:01"}, "", "more than 7 days"),
        ({"endDate": "2025-03-16 23:59:59"}, "", "startDate is after endDate"),
        ({"startDate": "2025-03-17"}, "", "startDate"),
        ({"startDate": "2025-03-17T00:00:00"}, "", "startDate"),
        ({"startDate": "2025-02-30 00:00:00"}, "", "startDate"),
        ({"startDate": None}, "", "startDate"),
        ({"timeZoneOffset": "0"}, "", "timeZoneOffset"),
        ({"timeZoneOffset": 901}, "", "timeZoneOffset"),
        ({"direction": "Sideways"}, "", "direction"),
        ({"chanels": ["voice"]}, "", "chanels: Extra inputs"),
        (b"", "", "startDate: Field required"),
    ],
)
async def test_a_wrong_question_to_the_call_details_is_a_412(client: Client, body: Any, query: str, says: str) -> None:
    answer = await client.details(body, query=query)
    assert (answer.status, answer.json) == (412, WRONG)
    report = client.sim.report()
    assert says in report["listings"]["last_refusal"]
    assert (report["listings"]["call_details"], report["listings"]["refused"]) == (1, 1)
    assert report["api"]["max_in_window"]["minute"] == 1


async def test_a_window_of_seven_days_and_the_earliest_of_all_are_answered(client: Client) -> None:
    client.sim.set_history({"calls": [call("one")]})
    assert ids(await client.details({"endDate": "2025-03-24 00:00:00"})) == ["one"]
    earliest = {"startDate": "0001-01-01 00:00:00", "endDate": "0001-01-01 00:00:00", "timeZoneOffset": -330}
    assert ids(await client.details(earliest)) == []


@pytest.mark.parametrize(
    ("shape", "body"),
    [
        ("errors", '{"errors": [{"msg": "Validation errors/ Invalid arguments", "code": 412}]}'),
        ("error", '{"error": {"message": "Validation errors/ Invalid arguments"}}'),
        ("message", '{"message": "Validation errors/ Invalid arguments"}'),
        ("text", "Validation errors/ Invalid arguments"),
    ],
)
async def test_errors_of_the_contact_center_can_have_another_shape(client: Client, shape: str, body: str) -> None:
    client.sim.alter({"agentassist_errors": shape})
    assert (await client.sessions({"skip": -1})).json == WRONG
    answer = await client.details({"startDate": None})
    assert (answer.status, answer.body.decode()) == (412, body)
    assert b"Invalid SDK credentials" in (await client.details(headers={"iId": "st-other"})).body
    client.sim.settings.account_rate_limits = ("1/hour",)
    limited = await client.details()
    assert limited.headers["Content-Type"].startswith("text/plain" if shape == "text" else "application/json")
    assert (limited.status, b"hourly rate limit" in limited.body) == (429, True)


async def test_the_headers_name_the_account_and_the_bot(client: Client) -> None:
    for headers, status in (({"accountId": "a-other"}, 400), ({"iId": "st-other"}, 401), ({"iId": ""}, 401)):
        assert (await client.details(headers=headers)).status == status
    assert (await client.details(account="a-other")).status == 400
    assert (await client.details(account="a-other", headers={"accountId": "a-other"})).status == 400
    assert client.sim.report()["listings"]["refused"] == 3
    assert (await client.details()).status == 200


# Calls that appear late -----------------------------------------------------------------------------------


async def test_a_call_appears_after_so_many_listings_of_either_kind(client: Client) -> None:
    client.sim.set_history({"calls": [call("early"), call("late", "08:00:00", appears_after=3)]})
    assert ids(await client.sessions(DAY)) == ["early"]
    assert (await client.sessions({"limit": 0})).status == 412
    assert ids(await client.details()) == ["early"]
    assert ids(await client.sessions({"sessionId": ["late"]})) == []
    assert ids(await client.details()) == ["early", "late"]
    answer = await client.sessions(DAY)
    assert (ids(answer), answer.json["total"]) == (["early", "late"], 2)


def test_a_call_appears_by_the_clock() -> None:
    now = [1000.0]
    calls = [call("early"), call("late", appears_at=5), call("both", appears_at=1, appears_after=4)]
    history = History(HistoryScript.from_json({"calls": calls}), clock=lambda: now[0])

    def listed() -> list[str]:
        history.begin_listing()
        fit = history_module.details_filter(voice=True)
        page = history.page(fit, 0, 2**60, skip=0, limit=10, newest_first=False)
        assert page.total == len(page.calls)
        return sorted(each.session_id for each in page.calls)

    assert listed() == ["early"]
    now[0] += 4.9
    assert listed() == ["early"]
    now[0] += 0.1
    assert listed() == ["early", "late"]
    assert listed() == ["early", "late"]
    assert listed() == ["both", "early", "late"]


# Access and limits ----------------------------------------------------------------------------------------


async def test_each_api_needs_its_scope(client: Client) -> None:
    client.sim.set_history({"calls": [call("one")]})
    for scopes, statuses in {
        ("Bot Sessions",): (200, 401, 401),
        ("SmartAssist Analytics",): (403, 200, 403),
        ("SmartAssist Recordings",): (401, 401, 200),
    }.items():
        client.sim.alter({"scopes": list(scopes), "scope_status": 403 if 403 in statuses else 401})
        answers = [await client.sessions(DAY), await client.details(), await client.ask("one")]
        assert tuple(answer.status for answer in answers) == statuses
        refused = [answer.json for answer in answers if answer.status != 200]
        assert refused == [{"errors": [{"msg": "Permission denied. Scope is incorrect!", "code": 4002}]}] * 2
    assert client.sim.report()["api"]["last_refusal"] == "the app lacks the scope SmartAssist Recordings"
    report = client.sim.report()
    assert report["api"]["by_status"] == {"unauthorized": 2, "success": 1}
    assert report["listings"]["unauthorized"] == 4
    assert report["listings"]["max_in_window"]["minute"] == 1


def test_an_unknown_scope_is_refused(sim: Simulator) -> None:
    with pytest.raises(ValueError, match="scopes"):
        sim.alter({"scopes": ["Bot sessions"]})


async def test_the_token_is_checked(client: Client) -> None:
    bad = client.token(key="x" * 64)
    assert (await client.sessions(DAY, token=bad)).status == 401
    assert (await client.details(headers={"auth": bad})).status == 401
    client.sim.reject_credentials = True
    assert (await client.sessions(DAY)).status == 401
    assert (await client.sessions(DAY, bot_id="st-other")).status == 401
    report = client.sim.report()
    assert (report["listings"]["unauthorized"], report["listings"]["refused"]) == (3, 0)
    assert report["api"]["max_in_window"]["minute"] == 0


async def test_the_sessions_history_counts_against_the_bot_and_all_else_against_the_account(client: Client) -> None:
    client.sim.settings.rate_limits = ("2/hour",)
    client.sim.settings.account_rate_limits = ("3/hour",)
    assert [(await client.sessions(DAY)).status for _ in range(3)] == [200, 200, 429]
    assert (await client.ask()).status == 200
    answers = [await client.details() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert (await client.ask()).status == 429
    assert "hourly rate limit" in answers[-1].message
    assert 3500 < int(answers[-1].headers["Retry-After"]) <= 3600
    report = client.sim.report()
    assert report["listings"] == {
        "get_sessions": 3,
        "call_details": 3,
        "interaction_details": 0,
        "refused": 0,
        "unauthorized": 0,
        "last_refusal": "",
        "rate_limited": 2,
        "rows": 0,
        "max_in_window": {"minute": 2, "hour": 2},
    }
    assert report["api"]["max_in_window"] == {"minute": 3, "hour": 3}
    assert report["api"]["rate_limited"] == 1


async def test_the_call_details_of_an_account_are_those_of_its_bots(client: Client) -> None:
    client.sim.settings.account_rate_limits = ("1/hour",)
    client.sim.add_bot("st-2", client.sim.client_id, client.sim.client_secret, "a-2")
    assert (await client.details()).status == 200
    assert (await client.details(headers={"iId": "st-2"})).status == 400
    of_two = {"iId": "st-2", "accountId": "a-2"}
    assert (await client.details(account="a-2", headers=of_two)).status == 429, "what was refused for its body counts"


async def test_the_report_counts_rows_and_a_waiter_is_woken(client: Client) -> None:
    client.sim.set_history({"calls": [call("a"), call("b"), call("c", channel="web")]})
    await client.sessions(DAY | {"limit": 2})
    await client.details({"channels": ["voice"]})
    report = await client.sim.wait_for(lambda report: report["listings"]["rows"] == 4)
    assert (report["listings"]["get_sessions"], report["listings"]["call_details"]) == (1, 1)


def test_a_page_of_many_calls_does_not_look_at_them_all(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.set_history({"made": MADE | {"calls": 20_000}})
    history = sim._listings.history
    looked_at: list[int] = []
    call_of = History.__getitem__

    def watched(self: History, number: int) -> Call:
        looked_at.append(number)
        return call_of(self, number)

    monkeypatch.setattr(History, "__getitem__", watched)
    history.begin_listing()
    page = history.page(history_module.sessions_filter(), 0, 2**60, skip=19_950, limit=100, newest_first=True)
    assert (len(page.calls), page.total, len(looked_at)) == (50, 20_000, 50)
