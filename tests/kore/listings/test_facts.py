"""What the rows of a listing say of a call, and where the rows are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from archiver.archive.context import BotAccess
from archiver.config import CALL_FACTS
from archiver.config.settings import DiscoverySettings
from archiver.errors import ApiDefect, NoListing
from archiver.health.bot_checks import check_listing
from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.kore.listings.calls import UNANSWERED
from archiver.kore.listings.reader import Reader
from archiver.kore.listings.sources import (
    InteractionDetails,
    SessionsHistory,
)
from tests.kore.conftest import http_answer, raw_server
from tests.kore.listings.conftest import (
    ALL_SOURCES,
    START,
    Odd,
    bot_settings,
    days,
    draw_nothing,
    listed,
    rows,
)

# --- what a row of the details says

DETAIL = {
    "conversationId": "c-1",
    "sessionId": "s-1",
    "channel": "Voice",
    "isVoicemail": "NO",
    "Direction": "Inbound",
    "sessionStartTime": "2025-03-01T10:00:00",
    "sessionEndTime": "2025-03-01T10:05:00",
}


def queue_entry(**more: Any) -> dict[str, Any]:
    return {"destinationType": "QueueEntry", "queueName": "Claims", **more}


def segment(agent_id: str, **more: Any) -> dict[str, Any]:
    return {"destinationType": "AgentSegment", "agentId": agent_id, "name": f"Agent {agent_id}", "status": "Answered", **more}


async def facts_of(**row: Any) -> Mapping[str, Any]:
    odd = Odd(lambda _body, _query: {"numResults": 1, "data": [DETAIL | row]})
    [listing] = await odd.read("call_details", days(1))
    assert not listing.problems
    [found] = listing.calls.values()
    return found.facts


async def test_agents_stand_in_their_order_wherever_the_platform_has_them_and_no_note_is_kept() -> None:
    facts = await facts_of(
        destinations=[
            queue_entry(
                respondingAgent=segment("a-1", agentNotes=["he sounded tired"]),
                nonRespondingAgents=[
                    segment("a-8", nonResponseEvent="Ignored"),
                    segment("a-2", acceptedTime="2025-03-01T10:01:00"),
                ],
            ),
            segment(
                "a-3",
                email="a3@example.com",
                agentNotes=["gave his card number"],
                ConsultingAgents=[{"name": "+15550123", "isMerged": False}, {"name": "Ben", "agentId": "a-9"}],
                JoinedUsers=[{"userId": "u-4", "name": "Supervisor"}, "Quinn", {}, None],
                ExternalTransferDestination="+15550177",
            ),
            queue_entry(queueName="Claims"),
            segment("a-1", email="a1@example.com"),
        ],
        csatFeedback="never again",
    )
    assert facts["agent"] == [
        {"agentId": "a-1", "name": "Agent a-1", "email": "a1@example.com"},
        {"agentId": "a-2", "name": "Agent a-2"},
        {"agentId": "a-3", "name": "Agent a-3", "email": "a3@example.com"},
    ]
    assert facts["consulted"] == [{"name": "+15550123"}, {"agentId": "a-9", "name": "Ben"}]
    assert facts["joined"] == [{"userId": "u-4", "name": "Supervisor"}, {"name": "Quinn"}]
    assert facts["transferred_to"] == ["+15550177"]
    assert facts["queue"] == ["Claims"]
    assert not any(word in str(facts) for word in ("tired", "card number", "never again", "a-8"))


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        ({"metaInfo": {"caller": "+1", "callee": "+2", "endUserNumber": "+3"}}, ("+1", "+2")),
        ({"metaInfo": {"caller": "", "endUserNumber": "+3", "dialedNumber": 4}}, ("+3", "4")),
        ({"metaInfo": {}, "customerinfo": {"CustomerPhone": "+5", "CenterPhone": "+6"}}, ("+5", "+6")),
        (
            {"metaInfo": {"customerinfo": {"CustomerPhone": "+5", "CenterPhone": "+6"}}, "customerinfo": {"CustomerPhone": ""}},
            ("+5", "+6"),
        ),
        ({"Direction": "Outbound", "metaInfo": {"endUserNumber": "+3", "dialedNumber": "+4"}}, ("+4", "+3")),
        ({"Direction": "Outbound", "customerinfo": {"CustomerPhone": "+5", "CenterPhone": "+6"}}, ("+6", "+5")),
        ({"metaInfo": [], "customerinfo": "x"}, (None, None)),
    ],
)
async def test_caller_and_callee_are_looked_for_in_all_places(row: dict[str, Any], numbers: tuple[str, str]) -> None:
    facts = await facts_of(**row)
    assert (facts.get("caller"), facts.get("callee")) == numbers


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"dispositions": ["solved", "solved", "", "called back"]}, ["solved", "called back"]),
        ({"dispositions": "solved"}, ["solved"]),
        ({"dispositions": [{"name": "solved", "remarks": "he cried"}]}, ["solved"]),
        (
            {"dispositions": {"status": "solved", "remarks": "he cried", "dispositionSets": [{"name": "a"}, "b"]}},
            ["solved", "a", "b"],
        ),
        ({"dispositions": [], "campaigninfo": {"attempt": "", "contactStatus": "DROP-OFF"}}, ["DROP-OFF"]),
        ({"dispositions": [], "dispositionRemarks": ["-"]}, None),
    ],
)
async def test_dispositions_are_words_without_what_was_remarked(row: dict[str, Any], words: list[str] | None) -> None:
    facts = await facts_of(**row)
    assert facts.get("disposition") == words
    assert "he cried" not in str(facts.get("disposition"))
    assert not facts.get("campaign")


async def test_remarks_are_a_fact_of_their_own_that_is_not_kept_by_default() -> None:
    facts = await facts_of(dispositionRemarks=["he cried"])
    assert facts["disposition_remarks"] == ["he cried"]
    assert "disposition_remarks" in CALL_FACTS
    assert "disposition_remarks" not in DiscoverySettings().keep
    assert DiscoverySettings(keep=("disposition_remarks",)).keep == ("disposition_remarks",)


CAMPAIGN = {"campaignName": "Reminders", "campaignId": "cd-1", "attempt": 2}
AT_ONCE = {"sessionEndTime": DETAIL["sessionStartTime"], "Direction": "Outbound"}


@pytest.mark.parametrize(
    ("row", "unanswered"),
    [
        (AT_ONCE | {"campaigninfo": CAMPAIGN | {"contactStatus": "no-answer"}}, "no-answer"),
        (AT_ONCE | {"campaigninfo": CAMPAIGN | {"contactStatus": " No_Answer "}}, "no-answer"),
        (AT_ONCE | {"campaigninfo": CAMPAIGN | {"contactStatus": "NO ANSWER"}}, "no-answer"),
        (AT_ONCE | {"campaigninfo": CAMPAIGN | {"contactStatus": "Busy"}}, "busy"),
        (AT_ONCE | {"campaigninfo": {"campaignInstanceId": "cid-1", "contactStatus": "failed"}}, "failed"),
        (AT_ONCE | {"campaigninfo": {"contactStatus": "failed"}, "metaInfo": {"campaignName": "Reminders"}}, "failed"),
        # Somebody may have spoken: it lasted, is not known to be over, or an agent was there.
        ({"Direction": "Outbound", "campaigninfo": CAMPAIGN | {"contactStatus": "failed"}}, None),
        ({"sessionEndTime": None, "campaigninfo": CAMPAIGN | {"contactStatus": "no-answer"}}, None),
        (AT_ONCE | {"destinations": [segment("a-1")], "campaigninfo": CAMPAIGN | {"contactStatus": "failed"}}, None),
        (AT_ONCE | {"campaigninfo": CAMPAIGN | {"contactStatus": "answered"}}, None),
        # An ordinary call, with a disposition.
        (AT_ONCE | {"campaigninfo": {"attempt": "", "contactStatus": "Failed"}}, None),
        (AT_ONCE | {"campaigninfo": None}, None),
    ],
)
async def test_a_campaign_dial_that_nobody_answered_is_known_as_such(row: dict[str, Any], unanswered: str | None) -> None:
    assert (await facts_of(**row)).get(UNANSWERED) == unanswered


async def test_the_campaign_that_dialled_is_named() -> None:
    facts = await facts_of(campaigninfo=CAMPAIGN | {"contactStatus": "answered"})
    assert facts["campaign"] == {"name": "Reminders", "id": "cd-1", "contact_status": "answered"}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_rows_of_one_session_make_one_call_in_which_no_agent_is_lost(order: tuple[int, int]) -> None:
    campaign = CAMPAIGN | {"contactStatus": "no-answer"}
    both = [
        DETAIL | AT_ONCE | {"destinations": [queue_entry()], "metaInfo": {"caller": "+1"}, "campaigninfo": campaign},
        DETAIL
        | {
            "conversationId": "c-2",
            "sessionStartTime": "2025-03-01T10:05:00",
            "sessionEndTime": "2025-03-01T10:09:00",
            "destinations": [queue_entry(queueName="Fraud"), segment("a-2"), segment("a-1")],
            "metaInfo": {"caller": "+9", "callee": "+2"},
        },
    ]
    both[0]["destinations"] = [queue_entry()]
    [listing] = await Odd(lambda _body, _query: {"data": [both[n] for n in order]}).read("call_details", days(1))
    [found] = listing.calls.values()
    assert (found.started_at, found.ended_at) == (START + timedelta(hours=10), START + timedelta(hours=10, minutes=9))
    assert found.facts["queue"] == ["Claims", "Fraud"]
    assert [agent["agentId"] for agent in found.facts["agent"]] == ["a-2", "a-1"]
    assert [found.facts[key] for key in ("caller", "callee", "conversation_id")] == ["+1", "+2", "c-1"]
    assert UNANSWERED not in found.facts


@pytest.mark.parametrize(
    ("told", "developer"), [(True, True), (1, True), ("true", True), ("1", True), (False, None), (0, None), (None, None)]
)
async def test_a_developers_session_is_listed_and_told_apart(told: Any, developer: bool | None) -> None:
    row = rows(1)[0] | {"isDeveloper": told}
    [listing] = await listed({"sessions": [row, *rows(2)[1:]], "total": 2})
    assert listing.calls["s-0", "recording"].facts.get("developer") == developer
    assert (len(listing.calls), listing.developer_calls) == (2, 1 if developer else 0)


async def test_hostile_details_are_made_harmless() -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    agent = {"agentId": deep, "name": {"a": 1}, "ConsultingAgents": [deep, {"name": deep}], "JoinedUsers": deep}
    facts = await facts_of(
        Direction=deep, metaInfo={"caller": deep}, customerinfo=deep, campaigninfo={"campaignName": deep, "contactStatus": deep},
        destinations=[deep, *[segment(f"a-{n}") for n in range(1000)], agent | {"destinationType": "AgentSegment"}],
        dispositions=[deep, [], {"name": deep}], dispositionRemarks=deep, sessionleveltags=deep, isDeveloper=deep,
    )  # fmt: skip
    assert len(facts["agent"]) == 50


# --- wrappers


BARE = [DETAIL | {"sessionId": f"s-{n}", "conversationId": f"c-{n}"} for n in range(3)]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ({"numResults": 3, "data": BARE}, 3),
        (BARE, 3),
        (BARE[0], 1),
        ({"callDetails": BARE, "errors": []}, 3),
        ({"data": {"numResults": 3, "data": BARE}}, 3),
        ([], 0),
        ({"numResults": 0}, 0),
        ({"numResults": 0, "data": None}, 0),
    ],
)
@pytest.mark.parametrize("name", ["call_details", "interaction_details"])
async def test_rows_are_found_whatever_is_around_them(name: str, answer: Any, calls: int) -> None:
    [listing] = await Odd(lambda _body, _query: answer).read(name, days(1))
    assert len(listing.calls) == calls
    assert not listing.problems


@pytest.mark.parametrize("name", ALL_SOURCES)
@pytest.mark.parametrize(
    "answer",
    [
        {"payload": "c2VjcmV0", "key": "d3JhcHBlZA==", "metadata": {"alg": "AES-256"}},
        {"data": "c2VjcmV0", "sessions": "c2VjcmV0", "d3JhcHBlZA==": 1},
        {"errors": [{"msg": "c2VjcmV0", "code": 4002}]},
        {"errors": [{"msg": "c2VjcmV0", "code": 4002}], "total": 0, "numResults": 0},
        {"data": "c2VjcmV0", "sessions": "c2VjcmV0", "total": 0, "numResults": 0},
    ],
)
async def test_an_answer_without_its_list_names_payload_encryption_and_shows_nothing_of_it(name: str, answer: Any) -> None:
    odd = Odd(lambda _body, _query: answer)
    with pytest.raises(NoListing) as caught:
        await odd.read(name, days(700))
    assert "payload encryption" in caught.value.hint
    told = f"{caught.value} {caught.value.hint} {caught.value.facts}"
    assert not any(word in told for word in ("c2VjcmV0", "d3JhcHBlZA", "AES"))
    assert odd.asked == 2, "once more for fewer days"


@pytest.mark.parametrize("body", ['"eyJ.c2VjcmV0"', "eyJ.c2VjcmV0", "7"])
async def test_an_answer_that_is_no_list_at_all_names_it_too(body: str) -> None:
    async with raw_server(lambda _head: http_answer(body.encode())) as server, api_session() as http:
        bot = bot_settings().model_copy(update={"host": server.url})
        client = KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None)
        with pytest.raises(ApiDefect) as caught:
            [each async for each in Reader(SessionsHistory(client, draw_nothing)).walk(days(700))]
    assert "payload encryption" in caught.value.hint
    assert "c2VjcmV0" not in f"{caught.value} {caught.value.facts}"
    assert len(server.heads) <= 2


async def test_a_list_without_a_wrapper_passes_the_client() -> None:
    answer = http_answer(json.dumps(BARE).encode())
    async with raw_server(lambda _head: answer) as server, api_session() as http:
        bot = bot_settings().model_copy(update={"host": server.url, "account_id": "a-1"})
        client = KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None)
        [listing] = [each async for each in Reader(InteractionDetails(client, draw_nothing)).walk(days(1))]
    assert len(listing.calls) == 3
    assert server.targets == ["/agentassist/api/public/analytics/account/a-1/v2/interactionDetails?offset=0&limit=100"]


LISTS, LACKS = {"numResults": 0, "data": [], "sessions": []}, 404
NOT_FOUND = "call_details: the platform answered HTTP 404"
REFUSED = "the platform refuses to list calls"
ENCRYPTED = {"payload": "c2VjcmV0"}


@pytest.mark.parametrize(
    ("interactions", "calls", "told", "verdict", "message", "mend"),
    [
        (LISTS, LISTS, (), "ok", "interaction_details answered", ""),
        (LISTS, LISTS, ("call_details",), "ok", "call_details answered", ""),
        (LACKS, LISTS, (), "ok", "call_details answered", ""),
        (
            LACKS,
            LACKS,
            (),
            "warning",
            "sessions answered, but it says less of a call",
            NOT_FOUND,
        ),
        (ENCRYPTED, ENCRYPTED, (), "warning", "sessions answered", "payload encryption"),
        (ENCRYPTED, ENCRYPTED, (), "warning", "sessions answered", "interaction_details and call_details: a listing without"),
        (
            LISTS,
            LACKS,
            ("call_details",),
            "warning",
            "the platform refuses to list calls",
            NOT_FOUND,
        ),
        (
            LACKS,
            LISTS,
            ("interaction_details",),
            "warning",
            "the platform refuses to list calls",
            "interaction_details: the platform",
        ),
    ],
)
async def test_doctor_says_what_becomes_of_each_listing(
    interactions: Any, calls: Any, told: tuple[str, ...], verdict: str, message: str, mend: str
) -> None:
    def reply(head: str) -> bytes:
        answer = interactions if "interactionDetails" in head else calls if "callDetails" in head else LISTS
        return http_answer(status="404 Not Found") if answer == LACKS else http_answer(json.dumps(answer).encode())

    async with raw_server(reply) as server, api_session() as http:
        bot = bot_settings().model_copy(update={"host": server.url, "account_id": "a-1"})
        unused: Any = None
        client = KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None)
        finding, _ = await check_listing(BotAccess(bot, client, unused, unused, unused), budget=False, used_before=told)
    assert (finding.verdict, mend in finding.hint, "c2VjcmV0" in str(finding)) == (verdict, True, False)
    assert finding.message.startswith(message)
