"""The listings against the simulated platform: every voice call of a span, each once, in no more requests than needed."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.archive.context import BotAccess
from archiver.config import CALL_FACTS
from archiver.config.settings import DiscoverySettings
from archiver.errors import ApiDefect, CredentialsRejected, NoListing, RateLimited
from archiver.health.checks import check_listing
from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.kore.listings import reader as reader_module
from archiver.kore.listings.calls import (
    PAGE,
    UNANSWERED,
    Call,
    CallDetails,
    InteractionDetails,
    Page,
    Row,
    SessionsHistory,
    Source,
    Span,
    sources_of,
    still_in_use,
)
from archiver.kore.listings.reader import Listing, Reader
from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.kore.conftest import SLOW_TEXT, beating, bot_of, http_answer, raw_server

START = datetime(2025, 3, 1, tzinfo=UTC)
SOURCES: dict[str, type[SessionsHistory] | type[CallDetails]] = {"sessions": SessionsHistory, "call_details": CallDetails}
ALL_SOURCES = SOURCES | {"interaction_details": InteractionDetails}


class Desk:
    """One platform, asked by either listing."""

    def __init__(self, simulator: Simulator, client: KoreClient) -> None:
        self.simulator = simulator
        self.client = client
        self.draws = 0

    async def draw(self) -> None:
        self.draws += 1

    def source(self, name: str) -> Source:
        return ALL_SOURCES[name](self.client, self.draw)

    async def read(self, name: str, span: Span, **how: Any) -> list[Listing]:
        return [listing async for listing in Reader(self.source(name)).walk(span, **how)]

    @property
    def requests(self) -> int:
        listings = self.simulator.report()["listings"]
        return int(listings["get_sessions"] + listings["call_details"])


@asynccontextmanager
async def desk_of(**changes: Any) -> AsyncIterator[Desk]:
    unlimited = {"rate_limits": (), "account_rate_limits": ()}
    async with Simulator(SimulatorSettings(**(unlimited | changes))) as simulator, api_session() as http:
        bot = bot_of(simulator, account_id=simulator.settings.account_id)
        yield Desk(simulator, KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with desk_of() as desk:
        yield desk


def call(number: int, started_at: datetime, seconds: float = 60, **fields: Any) -> dict[str, Any]:
    return {
        "session_id": f"65e7133a3242653c{number:08x}",
        "started_at": started_at.isoformat(),
        "ended_at": (started_at + timedelta(seconds=seconds)).isoformat(),
        **fields,
    }


def ids(listings: list[Listing]) -> list[str]:
    """Every call of every stretch: one that came twice stands twice."""
    return [key[0] for listing in listings for key in listing.calls]


def days(count: float) -> Span:
    return Span(START, START + timedelta(days=count))


# --- what is listed


@pytest.mark.parametrize("name", SOURCES)
async def test_what_is_told_of_a_call(desk: Desk, name: str) -> None:
    told = call(
        1, START + timedelta(hours=9, milliseconds=250), caller="+15550100", callee="+15550199", agent="Asha", agent_id="a-7",
        queue="Claims", dispositions=["solved"], conversation_id="c-1", language="hi", tags=["vip"], user_id="u-5",
    )  # fmt: skip
    desk.simulator.set_history({"calls": [told]})
    [listing] = await desk.read(name, days(1))
    [found] = listing.calls.values()
    whole = name == "call_details"
    assert found.key == (told["session_id"], "recording")
    assert found.started_at == START + timedelta(hours=9, milliseconds=0 if whole else 250)
    assert found.ended_at == found.started_at + timedelta(minutes=1)
    assert found.user_id == "u-5"
    if whole:
        assert [(agent["agentId"], agent["name"]) for agent in found.facts["agent"]] == [("a-7", "Asha")]
        assert found.facts["queue"] == ["Claims"]
        assert found.facts["disposition"] == ["solved"]
        assert [found.facts[key] for key in ("direction", "caller", "callee", "conversation_id")] == [
            "Inbound", "+15550100", "+15550199", "c-1",
        ]  # fmt: skip
    else:
        assert found.facts == {"language": ["hi"], "tags": ["vip"]}
    assert not listing.problems


async def test_only_voice_is_listed_and_other_channels_are_counted(desk: Desk) -> None:
    calls = [call(n, START + timedelta(minutes=n), channel=channel) for n, channel in enumerate(
        ["korevg", "audiocodes", "twiliovoice", "IVR", "web", "msteams", "web"])]  # fmt: skip
    desk.simulator.set_history({"calls": calls})
    [listing] = await desk.read("sessions", days(1))
    assert len(listing.calls) == 4
    assert listing.others == {"web": 2, "msteams": 1}
    assert not listing.problems


async def test_voicemails_are_told_apart_by_call_details(desk: Desk) -> None:
    desk.simulator.set_history({"calls": [call(1, START, voicemail=True), call(2, START)]})
    [listing] = await desk.read("call_details", days(1))
    assert sorted(kind for _, kind in listing.calls) == ["recording", "voicemail"]


@pytest.mark.parametrize("places", ["metaInfo", "endUserNumber", "customerinfo", "metaInfo.customerinfo"])
async def test_all_that_the_platform_tells_is_asked_for_and_found(desk: Desk, places: str) -> None:
    asked = call(
        1, START, numbers_at=places, caller="+15550100", callee="+15550199", agent="Asha", agent_id="a-7", agent_at="segment",
        queue="Claims", consulted=["+15550123"], joined=["Quinn"], disposition_remarks=["he cried"], campaign="Reminders",
        contact_status="answered",
    )  # fmt: skip
    dialled = call(2, START, 0, direction="Outbound", campaign="Reminders", contact_status="busy")
    desk.simulator.set_history({"calls": [asked, dialled, call(3, START, ended_at_bot=True)]})
    [listing] = await desk.read("call_details", days(1))
    facts, unanswered = (listing.calls[each["session_id"], "recording"].facts for each in (asked, dialled))
    assert (facts["caller"], facts["callee"], facts["agent"][0]["agentId"]) == ("+15550100", "+15550199", "a-7")
    assert (facts["consulted"], facts["joined"]) == ([{"name": "+15550123"}], [{"name": "Quinn"}])
    assert (facts["campaign"]["name"], facts["disposition_remarks"]) == ("Reminders", ["he cried"])
    assert (unanswered[UNANSWERED], UNANSWERED in facts) == ("busy", False)
    assert len(listing.calls) == 2
    [fuller] = await desk.read("interaction_details", days(1))
    assert len(fuller.calls) == 3


@pytest.mark.parametrize("name", SOURCES)
async def test_a_call_that_runs_has_no_end(desk: Desk, name: str) -> None:
    desk.simulator.set_history({"calls": [{**call(1, START), "ended_at": None}]})
    [listing] = await desk.read(name, days(1))
    assert [found.ended_at for found in listing.calls.values()] == [None]


# --- properties

moments = st.integers(0, 3 * 86_400_000 - 1).map(lambda ms: START + timedelta(milliseconds=ms))


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Calls over three days: some crowded into an hour or some seconds, some of other channels, some that appear late."""
    spread = draw(st.lists(moments, max_size=120))
    crowd = draw(st.sampled_from([0, 0, 99, 100, 101, 250, 1000, 1300]))
    at, within = draw(moments), draw(st.sampled_from([10_000, 3_600_000]))
    crowded = [at + timedelta(milliseconds=n * within / max(crowd, 1)) for n in range(crowd)]
    late = st.one_of(st.none(), st.none(), st.none(), st.integers(1, 12))
    channel = st.sampled_from(["korevg", "korevg", "audiocodes", "web"])
    calls = []
    for number, moment in enumerate([*spread, *crowded]):
        fields: dict[str, Any] = {}
        if number < len(spread):
            fields = {"channel": draw(channel), "voicemail": draw(st.booleans())}
            if (after := draw(late)) is not None:
                fields["appears_after"] = after
        calls.append(call(number, moment, **fields))
    return calls


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_voice_call_of_a_span_is_listed_once(name: str, data: st.DataObject) -> None:
    calls = data.draw(histories())
    bounds = sorted(data.draw(st.lists(moments, min_size=2, max_size=2, unique=True)))
    newest_first = data.draw(st.booleans())
    platform = {
        "page_order": data.draw(st.sampled_from(["newest", "oldest"])),
        "num_results": data.draw(st.sampled_from(["page", "all", "wrong"])),
        "session_totals": data.draw(st.sampled_from(["right", "wrong"])),
    }

    async def check() -> None:
        async with desk_of(**platform) as desk:
            desk.simulator.set_history({"calls": calls})
            span = Span(*bounds)
            listings = await desk.read(name, span, newest_first=newest_first)
            _check_listings(desk, name, span, listings, calls)

    asyncio.run(check())


def _check_listings(desk: Desk, name: str, span: Span, listings: list[Listing], calls: list[dict[str, Any]]) -> None:
    found = ids(listings)
    assert len(found) == len(set(found)), "listed twice"
    grain = desk.source(name).grain
    first = min((each.span.start for each in listings), default=span.start)
    last = max((each.span.end for each in listings), default=span.start)
    assert span.start <= first < span.start + grain
    assert span.end <= last < span.end + grain or not listings
    ordered = sorted(listings, key=lambda each: each.span.start)
    assert all(before.span.end == after.span.start for before, after in itertools.pairwise(ordered)), "a gap"
    truly = {each.session_id for each in desk.simulator.calls(first, last)}
    waiting = {each["session_id"] for each in calls if "appears_after" in each}
    assert set(found) <= truly, "not of this span"
    # What appeared while it was being read may have been seen or not; all else must.
    assert truly - waiting <= set(found), "missed"
    for listing in listings:
        assert listing.whole or (listing.shifted and waiting)  # three times in a row, new ones came while it was read
        assert not any([listing.hidden, listing.broken, listing.outside, listing.unreadable])


@pytest.mark.parametrize("name", SOURCES)
@settings(max_examples=25, deadline=None)
@given(count=st.integers(0, 999), hours=st.integers(1, 160))
def test_a_stretch_takes_as_many_requests_as_it_has_pages_and_a_short_one(name: str, count: int, hours: int) -> None:
    calls = [call(n, START + timedelta(hours=hours) * n / count) for n in range(count)]

    async def check() -> None:
        async with desk_of() as desk:
            desk.simulator.set_history({"calls": calls})
            listings = await desk.read(name, Span(START, START + timedelta(hours=hours)))
            assert len(ids(listings)) == count
            assert len(listings) == 1
            assert desk.requests == desk.draws == count // PAGE + 1

    asyncio.run(check())


@pytest.mark.parametrize("num_results", ["page", "all"])
async def test_four_thousand_calls_in_one_hour_of_a_day_are_listed_whole(num_results: str) -> None:
    busiest = {"from": "2025-03-01T10:00:00Z", "to": "2025-03-01T11:00:00Z", "calls": 4000}
    made = {"from": "2025-03-01T00:00:00Z", "to": "2025-03-02T00:00:00Z", "calls": 1000, "busiest": busiest}
    async with desk_of(num_results=num_results) as desk:
        desk.simulator.set_history({"made": made})
        listings = await desk.read("call_details", days(1))
        found = ids(listings)
        assert set(found) == {each.session_id for each in desk.simulator.calls(START, START + timedelta(days=1))}
        assert len(found) == len(set(found)) == 5000
        least = sum(len(listing.seen) // PAGE + 1 for listing in listings)
        wasted = desk.requests - least
        # A stretch that turned out too busy costs its ten pages, or, where the platform tells the number, one.
        assert wasted <= (10 if num_results == "page" else 1) * 11
        assert len(listings) <= 20


async def test_what_a_second_cannot_show_is_reported(desk: Desk) -> None:
    desk.simulator.set_history({"calls": [call(n, START + timedelta(microseconds=500 * n)) for n in range(1200)]})
    listings = await desk.read("call_details", Span(START - timedelta(minutes=1), START + timedelta(minutes=1)))
    [broken] = [listing for listing in listings if not listing.whole]
    assert broken.span == Span(START, START + timedelta(seconds=1))
    assert len(broken.calls) == 1000
    [problem] = broken.problems
    assert problem["problem"] == "not_listed_whole"
    # The sessions history has no such bound.
    assert len(ids(await desk.read("sessions", days(1)))) == 1200


# --- what disagrees


async def test_a_total_that_disagrees_is_looked_into_once_and_reported(desk: Desk) -> None:
    desk.simulator.set_history({"calls": [call(n, START + timedelta(hours=20 * n)) for n in range(150)]})
    desk.simulator.alter({"session_totals": "wrong"})
    listings = await desk.read("sessions", days(150))
    assert len(ids(listings)) == 150
    problems = [problem for listing in listings for problem in listing.problems]
    assert {problem["problem"] for problem in problems} == {"total_disagrees"}
    assert problems[0]["total"] - problems[0]["listed"] == 7
    # The first stretch is read twice, and up to an empty page; after that the totals are known to mean something else.
    assert desk.requests == len(listings) + 3


async def test_calls_that_come_in_while_pages_are_read_shift_none_out_of_sight(desk: Desk) -> None:
    old = [call(n, START + timedelta(seconds=n)) for n in range(350)]
    late = [call(1000 + n, START + timedelta(hours=2, seconds=n), appears_after=2) for n in range(30)]
    desk.simulator.set_history({"calls": old + late})
    [listing] = await desk.read("sessions", days(1))
    assert len(listing.calls) == 380
    assert not listing.problems


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"sessionId": "", "channel": "korevg", "start_time": "2025-03-01T10:00:00.000Z"}], "names no session"),
        ([{"channel": "korevg", "start_time": "2025-03-01T10:00:00.000Z"}], "names no session"),
        ([{"sessionId": "s-1", "channel": "korevg", "start_time": "yesterday"}], "does not say when"),
        ([{"sessionId": "s-1", "channel": "korevg"}], "does not say when"),
        (["s-1"], "not an object"),
    ],
)
async def test_a_row_that_names_no_call_is_reported(rows: list[Any], complaint: str) -> None:
    [listing] = await _listed({"sessions": rows})
    assert not listing.calls
    [problem] = listing.problems
    assert problem["problem"] == "rows_unreadable"
    assert complaint in problem["first"]


async def test_a_call_that_began_at_another_time_than_was_asked_for_is_reported() -> None:
    row = {"sessionId": "s-1", "channel": "korevg", "start_time": "2025-03-09T10:00:00.000Z"}
    [listing] = await _listed({"sessions": [row]})
    assert not listing.calls
    assert list(listing.outside) == [("s-1", "recording")]
    assert [(problem["problem"], problem["gap"]) for problem in listing.problems] == [("calls_outside", True)]
    assert not listing.whole


async def test_hostile_rows_are_made_harmless() -> None:
    row = {"sessionId": "a\0b\ud800", "channel": "korevg", "start_time": "2025-03-01T10:00:00", "end_time": [7],
           "userId": "x\n", "tags": [["x" * 9999] * 999] * 999, "session_lang": {"a": {"b": {"c": {"d": {"e": 1}}}}}}  # fmt: skip
    [listing] = await _listed({"sessions": [row], "total": True})
    [found] = listing.calls.values()
    assert found == Call("a\ufffdb?", "recording", START + timedelta(hours=10), None, None, found.facts)
    assert len(repr(found.facts)) < 2_000_000
    assert listing.total is None


async def test_rows_that_are_slow_to_redact_stop_nobody_else() -> None:
    """A night's worker runs in the same process."""
    told = [SLOW_TEXT * 10 for _ in range(50)]
    page = [{**row, "tags": told, "session_lang": SLOW_TEXT * 1000} for row in rows(60)]
    async with beating(1.0):
        [listing] = await _listed({"sessions": page})
    assert len(listing.calls) == 60


async def test_of_a_long_session_id_no_more_is_kept_than_tells_it_from_others() -> None:
    page = [{**row, "sessionId": f"{'x' * 30_000}{n}"} for n, row in enumerate(rows(3))]
    page += [{"sessionId": f"{'x' * 30_000}{n}", "channel": f"chat {'y' * 30_000}"} for n in range(3)]
    [listing] = await _listed({"sessions": page})
    assert len(listing.calls) == 3
    assert len(listing.seen) == 6
    assert max(map(len, listing.seen)) <= 1000
    assert max(len(session_id) for session_id, _ in listing.calls) <= 1000


async def test_a_row_deeper_than_python_can_show_is_one_row_that_cannot_be_read() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    good = {"sessionId": "s-1", "channel": "korevg", "start_time": 1740823200000, "tags": deep}
    [listing] = await _listed({"sessions": [good, deep, {"sessionId": deep, "channel": "korevg", "start_time": deep}]})
    assert [found.started_at for found in listing.calls.values()] == [START + timedelta(hours=10)]
    assert [problem["rows"] for problem in listing.problems] == [2]


@pytest.mark.parametrize("answer", [{}, {"sessions": None}, {"sessions": {}}])
async def test_an_answer_without_its_list_is_a_defect(answer: dict[str, Any]) -> None:
    with pytest.raises(NoListing, match="without its list"):
        await _listed(answer)


# --- platforms that are not as documented


class Odd:
    """Answers as `says` has it, of the pages asked for; counts them."""

    def __init__(self, says: Callable[[dict[str, Any], dict[str, str]], Any]) -> None:
        self.bot = bot_settings()
        self.asked = 0
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self._says = says

    async def listing(self, path: str, *, json: dict[str, Any], **_: object) -> Any:
        self.asked += 1
        self.bodies.append(json)
        self.paths.append(path)
        assert self.asked < 500, "it would go on for ever"
        query = dict(pair.split("=") for pair in path.partition("?")[2].split("&") if pair)
        answer: Any = self._says(json, query)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def read(self, name: str, span: Span, **how: Any) -> list[Listing]:
        client: Any = self
        return [each async for each in Reader(ALL_SOURCES[name](client, _nothing)).walk(span, **how)]


async def _listed(answer: dict[str, Any]) -> list[Listing]:
    return await Odd(lambda _body, _query: answer).read("sessions", days(1))


def rows(count: int, start: datetime = START) -> list[dict[str, Any]]:
    return [
        {"sessionId": f"s-{n}", "channel": "korevg", "start_time": (start + timedelta(seconds=n)).isoformat()}
        for n in range(count)
    ]


def shown(all_rows: list[dict[str, Any]], body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of the time that is asked for, as getSessions keeps to it."""
    first, last = (datetime.fromisoformat(body[key]) for key in ("dateFrom", "dateTo"))
    return [row for row in all_rows if first <= datetime.fromisoformat(row["start_time"]) <= last]


@pytest.mark.parametrize("hint", [{"total": "250"}, {"total": 250.0}, {"moreAvailable": True}])
async def test_pages_that_are_capped_are_read_on_where_the_platform_says_that_there_are_more(hint: dict[str, Any]) -> None:
    everything = rows(250)

    def says(body: dict[str, Any], _: object) -> dict[str, Any]:
        page = shown(everything, body)[body["skip"] : body["skip"] + 50]
        return {"sessions": page, **(hint if "total" in hint else {"moreAvailable": body["skip"] + 50 < 250})}

    [listing] = await Odd(says).read("sessions", days(1))
    assert len(listing.calls) == 250
    assert listing.whole


async def test_a_call_that_is_deleted_while_pages_are_read_hides_no_other() -> None:
    everything = rows(350)

    def says(body: dict[str, Any], _: object) -> dict[str, Any]:
        if body["skip"] == 100 and everything[0]["sessionId"] == "s-0":
            del everything[0]
        found = shown(everything, body)
        return {"sessions": found[body["skip"] : body["skip"] + 100], "total": len(found)}

    [listing] = await Odd(says).read("sessions", days(1))
    assert {f"s-{n}" for n in range(1, 350)} <= {session_id for session_id, _ in listing.calls}


async def test_a_platform_that_shows_the_same_page_for_ever_is_not_believed() -> None:
    same = Odd(lambda _body, _query: {"sessions": rows(100)})
    [listing] = await same.read("sessions", days(1))
    assert not listing.whole
    assert same.asked <= 10


async def test_a_number_of_results_that_is_always_the_same_is_soon_not_believed() -> None:
    always = Odd(lambda _body, _query: {"data": [], "numResults": 5000})
    listings = await always.read("call_details", days(1 / 24))
    assert all(listing.whole for listing in listings)
    assert always.asked < 50


async def test_a_platform_that_ignores_the_dates_is_told_as_such() -> None:
    ignores = Odd(lambda _body, _query: {"sessions": rows(100, START - timedelta(days=400))})
    with pytest.raises(ApiDefect, match="other times"):
        await ignores.read("sessions", days(30))


async def test_pages_of_ninety_nine_are_asked_for_no_further_than_there_are_pages() -> None:
    def says(_: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        assert int(query["offset"]) < 10
        made = rows(99, START + timedelta(seconds=100 * int(query["offset"])))
        data = [
            {**row, "sessionId": f"{query['offset']}-{row['sessionId']}", "sessionStartTime": row["start_time"]} for row in made
        ]
        return {"data": data, "numResults": 100_000}

    odd = Odd(says)
    with pytest.raises(ApiDefect, match="even the shortest stretches have more than 990 rows"):
        await odd.read("call_details", days(1))
    assert odd.asked <= 10 * 20


@pytest.mark.parametrize("poison", [ApiDefect("an answer of more than 4194304 bytes"), ApiDefect("the answer is not JSON")])
async def test_what_cannot_be_read_of_a_stretch_hides_no_more_than_itself(poison: ApiDefect) -> None:
    everything, bad = rows(300), START + timedelta(seconds=150)

    def says(body: dict[str, Any], _: object) -> Any:
        found = shown(everything, body)
        page = found[body["skip"] : body["skip"] + 100]
        if any(datetime.fromisoformat(row["start_time"]) == bad for row in page):
            return poison
        return {"sessions": page, "total": len(found)}

    listings = await Odd(says).read("sessions", Span(START, START + timedelta(minutes=10)))
    assert len(ids(listings)) == 299
    [broken] = [listing for listing in listings if not listing.whole]
    assert broken.span.holds(bad)
    assert broken.span.length < timedelta(seconds=1)
    assert broken.problems[0]["problem"] == "not_listed"


async def test_a_platform_whose_every_page_is_broken_ends_the_reading() -> None:
    with pytest.raises(ApiDefect, match="not JSON"):
        await Odd(lambda _body, _query: ApiDefect("the answer is not JSON")).read("sessions", days(700))


async def test_a_session_that_is_listed_twice_costs_one_more_reading_and_is_no_gap() -> None:
    twice = [*rows(150), rows(1)[0]]
    odd = Odd(lambda body, _query: {"sessions": twice[body["skip"] : body["skip"] + 100]})
    [listing] = await odd.read("sessions", days(1))
    assert (len(listing.calls), listing.whole, odd.asked) == (150, True, 4)


async def test_spans_that_meet_within_a_second_share_no_call(desk: Desk) -> None:
    middle = START + timedelta(milliseconds=500)
    desk.simulator.set_history({"calls": [call(1, START), call(2, START + timedelta(milliseconds=700))]})
    for name in SOURCES:
        before = await desk.read(name, Span(START - timedelta(hours=1), middle))
        after = await desk.read(name, Span(middle, START + timedelta(hours=1)))
        assert sorted(ids(before) + ids(after)) == [call(n, START)["session_id"] for n in (1, 2)]


async def _nothing() -> None:
    return None


def bot_settings() -> Any:
    from archiver.config import BotSettings

    return BotSettings.model_validate({"name": "b", "bot_id": "st-1", "client_id": "cs-1", "client_secret": "secret-1"})


# --- refusals


@pytest.mark.parametrize(("name", "scope"), [("sessions", "Bot Sessions"), ("call_details", "SmartAssist Analytics")])
async def test_a_missing_scope_is_named(name: str, scope: str) -> None:
    async with desk_of(scopes=("SmartAssist Recordings",)) as desk:
        with pytest.raises(CredentialsRejected) as caught:
            await desk.read(name, days(1))
        assert scope in caught.value.hint


@pytest.mark.parametrize("name", SOURCES)
async def test_a_rate_limit_is_for_the_caller_to_wait_out(name: str) -> None:
    async with desk_of(rate_limits=("1/minute",), account_rate_limits=("1/minute",)) as desk:
        await desk.read(name, days(1))
        with pytest.raises(RateLimited):
            await desk.read(name, days(1))


@pytest.mark.parametrize(("page_rows", "pages"), [(100, 200), (1, 400)])
async def test_pages_without_an_end_are_not_read_for_ever(page_rows: int, pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "ENDLESS", 20_000)
    monkeypatch.setattr(reader_module, "LEAST_ROWS", 50)
    when = START.isoformat()

    def more(body: dict[str, Any], _query: dict[str, str]) -> dict[str, Any]:
        page = range(body["skip"], body["skip"] + page_rows)
        return {
            "sessions": [{"sessionId": f"s-{n}", "channel": "korevg", "start_time": when} for n in page],
            "moreAvailable": True,
        }

    odd = Odd(more)
    (listing,) = await odd.read("sessions", Span(START, START + timedelta(milliseconds=1)))
    assert listing.hidden
    assert not listing.whole
    assert odd.asked == pages


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
    [listing] = await _listed({"sessions": [row, *rows(2)[1:]], "total": 2})
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
            [each async for each in Reader(SessionsHistory(client, _nothing)).walk(days(700))]
    assert "payload encryption" in caught.value.hint
    assert "c2VjcmV0" not in f"{caught.value} {caught.value.facts}"
    assert len(server.heads) <= 2


async def test_a_list_without_a_wrapper_passes_the_client() -> None:
    answer = http_answer(json.dumps(BARE).encode())
    async with raw_server(lambda _head: answer) as server, api_session() as http:
        bot = bot_settings().model_copy(update={"host": server.url, "account_id": "a-1"})
        client = KoreClient(bot, http, max_files=10, on_retry=lambda _error, _wait: None)
        [listing] = [each async for each in Reader(InteractionDetails(client, _nothing)).walk(days(1))]
    assert len(listing.calls) == 3
    assert server.targets == ["/agentassist/api/public/analytics/account/a-1/v2/interactionDetails?offset=0&limit=100"]


LISTS, LACKS = {"numResults": 0, "data": [], "sessions": []}, 404
ENCRYPTED = {"payload": "c2VjcmV0"}


@pytest.mark.parametrize(
    ("interactions", "calls", "told", "verdict", "message", "mend"),
    [
        (LISTS, LISTS, (), "ok", "interaction_details answered", ""),
        (LISTS, LISTS, ("call_details",), "ok", "call_details answered", ""),
        (LACKS, LISTS, (), "ok", "call_details answered", ""),
        (LACKS, LACKS, (), "warning", "sessions answered, but it tells less", "call_details: the platform answered HTTP 404"),
        (ENCRYPTED, ENCRYPTED, (), "warning", "sessions answered", "payload encryption"),
        (ENCRYPTED, ENCRYPTED, (), "warning", "sessions answered", "interaction_details and call_details: a listing without"),
        (LISTS, LACKS, ("call_details",), "warning", "refused: `discover`", "call_details: the platform answered HTTP 404"),
        (LACKS, LISTS, ("interaction_details",), "warning", "refused: `discover`", "interaction_details: the platform"),
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
        finding = await check_listing(BotAccess(bot, client, unused, unused, unused), budget=False, told=told)
    assert (finding.verdict, mend in finding.mend, "c2VjcmV0" in str(finding)) == (verdict, True, False)
    assert finding.message.startswith(message)


# --- what is asked


@pytest.mark.parametrize("newest_first", [False, True])
async def test_the_sessions_history_is_never_asked_for_seven_days_and_not_for_its_meta(newest_first: bool) -> None:
    odd = Odd(lambda _body, _query: {"sessions": [], "total": 0, "moreAvailable": False})
    listings = await odd.read("sessions", days(30.5), newest_first=newest_first)
    bounds = [[datetime.fromisoformat(body[key]) for key in ("dateFrom", "dateTo")] for body in odd.bodies]
    assert all(timedelta(0) <= last - first < timedelta(days=6, hours=23) for first, last in bounds)
    assert all(body.keys() == {"skip", "limit", "dateFrom", "dateTo"} for body in odd.bodies)
    assert sum((each.span.length for each in listings), timedelta()) == timedelta(days=30.5)


@pytest.mark.parametrize(
    ("name", "first", "last"), [("sessions", "dateFrom", "dateTo"), ("call_details", "startDate", "endDate")]
)
@pytest.mark.parametrize(
    "refusal",
    [
        ApiDefect("the platform answered HTTP 400", reason="api_http_400", http_status=400),
        {"errors": [{"msg": "The dates have to be less than 7 days apart", "code": 4002}]},
    ],
    ids=["HTTP 400", "HTTP 200"],
)
async def test_a_platform_that_counts_the_days_of_a_stretch_otherwise_is_asked_for_fewer(
    name: str, first: str, last: str, refusal: Any
) -> None:
    def says(body: dict[str, Any], _: object) -> Any:
        dates = [datetime.fromisoformat(body[key]).date() for key in (first, last)]
        if (dates[1] - dates[0]).days + 1 >= 7:  # both included
            return refusal
        return {"sessions": [], "data": []}

    odd = Odd(says)
    await odd.read(name, Span(START + timedelta(hours=5), START + timedelta(days=100)))
    assert odd.asked == 1 + 20


@pytest.mark.parametrize("name", ALL_SOURCES)
@pytest.mark.parametrize("status", [400, 412, 422])
async def test_a_request_that_is_refused_is_named_and_not_repeated(name: str, status: int) -> None:
    refusal = ApiDefect(f"the platform answered HTTP {status}", reason=f"api_http_{status}", http_status=status)
    odd = Odd(lambda _body, _query: refusal)
    with pytest.raises(ApiDefect) as caught:
        await odd.read(name, days(700))
    asked = ("getSessions", "dateFrom") if name == "sessions" else (name.partition("_")[0], "Details?offset=0", "startDate")
    assert all(word in str(caught.value) for word in (f"HTTP {status}", *asked))
    assert (caught.value.facts["http_status"], caught.value.reason) == (status, f"api_http_{status}")
    assert "bots.b.account_id" in caught.value.hint
    assert odd.asked == 2, "once more for fewer days"
    one_day = Odd(lambda _body, _query: refusal)
    with pytest.raises(ApiDefect):
        await one_day.read(name, days(1))
    assert one_day.asked == 1


def test_which_listings_a_bot_has() -> None:
    def names(told: tuple[str, ...] = (), **changes: Any) -> list[str]:
        client: Any = SimpleNamespace(bot=bot_settings().model_copy(update=changes))
        return [each.name for each in still_in_use(sources_of(client, sessions=_nothing, details=_nothing), told)]

    assert names() == ["sessions"]
    assert names(account_id="a") == ["interaction_details", "call_details", "sessions"]
    assert names(("call_details",), account_id="a") == ["call_details", "sessions"], "an archive goes on as it began"
    assert names(("call_details", "interaction_details"), account_id="a")[0] == "interaction_details"
    assert names(("sessions",), account_id="a")[0] == "interaction_details"
    for discovery in ("sessions", "call_details", "interaction_details"):
        assert names(("call_details",), account_id="a", discovery=discovery) == [discovery]


# --- listings that do not do what they are asked for


@pytest.mark.parametrize("count", [3, 40, 100, 1500])
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("name", SOURCES)
async def test_a_listing_that_ignores_its_time_ends_in_one_clear_error(name: str, newest_first: bool, count: int) -> None:
    made = [
        {"sessionId": f"s-{n}", "channel": "korevg", "start_time": at.isoformat(), "sessionStartTime": at.isoformat()}
        for n in range(count)
        for at in [START + timedelta(days=350, hours=n / 10)]
    ][::-1]

    def says(body: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        skip = body.get("skip", PAGE * int(query.get("offset", 0)))
        return {"sessions": made[skip : skip + PAGE], "data": made[skip : skip + PAGE], "total": count}

    odd = Odd(says)
    with pytest.raises(ApiDefect, match="other times than it was asked for"):
        await odd.read(name, days(700), newest_first=newest_first)
    assert odd.asked <= 40


async def test_a_session_that_lasts_for_weeks_does_not_end_the_reading() -> None:
    """It may be listed for every time that it touches."""
    row = rows(1)[0]
    odd = Odd(lambda _body, _query: {"sessions": [row], "total": 1})
    listings = await odd.read("sessions", Span(START - timedelta(days=2), START + timedelta(days=1)))
    assert listings
    lasting = row | {"end_time": (START + timedelta(days=40)).isoformat()}
    long = Odd(lambda _body, _query: {"sessions": [lasting], "total": 1})
    assert len(await long.read("sessions", days(30))) == 5


@pytest.mark.parametrize(("name", "count"), [("sessions", 100), ("sessions", 1), ("call_details", 100)])
async def test_a_listing_that_repeats_its_page_is_named_in_few_requests(name: str, count: int) -> None:
    def says(body: dict[str, Any], _query: object) -> dict[str, Any]:
        start = datetime.fromisoformat(body.get("dateFrom") or body["startDate"])
        made = rows(count, start.replace(tzinfo=UTC) + timedelta(hours=1))
        data = [row | {"sessionStartTime": row["start_time"], "sessionId": f"{start} {row['sessionId']}"} for row in made]
        return {"sessions": data, "data": data, "total": count, "moreAvailable": True}

    odd = Odd(says)
    listings = await odd.read(name, days(70))
    assert {problem["problem"] for each in listings for problem in each.problems} == {"not_listed_whole"}
    assert odd.asked <= (4 if count == 100 else 22) * len(listings)
    assert len(listings) <= 11


# --- how many requests


class Years:
    """A listing of two years, as the platform shows it, in memory; counts its requests."""

    def __init__(self, like: type[SessionsHistory] | type[CallDetails], moments: list[datetime], totals: str) -> None:
        self.grain, self.longest, self.wanted, self.most = like.grain, like.longest, like.wanted, like.most
        self.shows_all = like.shows_all
        self.asked = 0
        self._moments = sorted(moments)
        self._totals = totals

    async def page(self, span: Span, number: int, seen: int) -> Page:
        self.asked += 1
        first, last = (bisect.bisect_left(self._moments, bound) for bound in (span.start, span.end))
        skip = seen if self.shows_all else number * PAGE
        of_page = range(last - skip - 1, max(first, last - skip - PAGE) - 1, -1)  # newest first
        page = [Row(str(n), Call(str(n), "recording", self._moments[n])) for n in of_page]
        return Page(page, {"all": last - first, "page": len(page)}.get(self._totals), skip + len(page) < last - first)


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("totals", ["all", "page"])
@pytest.mark.parametrize("name", SOURCES)
async def test_two_years_with_quiet_months_take_hardly_more_requests_than_can_be(
    name: str, totals: str, newest_first: bool
) -> None:
    """At the least it is one for each stretch as long as may be, and one for each further page."""
    randomly = random.Random(7)
    moments = [
        START + timedelta(days=day, seconds=int(min(max(randomly.gauss(13, 3), 0), 23.9) * 3600))
        for day in range(730)
        for _ in range((0, 2, 300, 10)[day // 30 % 4])  # calls a day
        if day % 7 < 5
    ]
    years = Years(SOURCES[name], moments, totals)
    source: Any = years
    listings = [each async for each in Reader(source).walk(days(730), newest_first=newest_first)]
    assert sum(len(each.calls) for each in listings) == len(moments) > 35_000
    assert all(each.whole for each in listings)
    steps = -(-timedelta(days=730) // years.longest)
    assert steps == 105
    assert years.asked <= 1.05 * (steps + len(moments) // PAGE)


async def test_a_quiet_listing_takes_one_request_for_each_longest_stretch() -> None:
    for like in SOURCES.values():
        years: Any = Years(like, [START + timedelta(days=40 * n) for n in range(18)], "all")
        assert len([each async for each in Reader(years).walk(days(730))]) == years.asked == 105


async def test_what_comes_in_no_order_is_read_whole_in_shorter_stretches() -> None:
    everything = rows(2500)
    mixed = random.Random(1).sample(everything, len(everything))

    def says(body: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        first, last = (datetime.fromisoformat(body[key]).replace(tzinfo=UTC) for key in ("startDate", "endDate"))
        found = [row for row in mixed if first <= datetime.fromisoformat(row["start_time"]) <= last]
        page = found[PAGE * int(query["offset"]) :][:PAGE]
        return {"data": [row | {"sessionStartTime": row["start_time"]} for row in page], "numResults": len(page)}

    listings = await Odd(says).read("call_details", Span(START, START + timedelta(hours=2)))
    assert len(ids(listings)) == len(set(ids(listings))) == 2500
    assert all(each.whole for each in listings)


@pytest.mark.parametrize("oldest_first", [False, True])
async def test_calls_of_one_second_where_pages_end_are_not_lost(oldest_first: bool) -> None:
    crowd = [{**row, "start_time": (START + timedelta(seconds=n // 7)).isoformat()} for n, row in enumerate(rows(2500))]
    ordered = crowd if oldest_first else crowd[::-1]

    def says(body: dict[str, Any], query: dict[str, str]) -> dict[str, Any]:
        first, last = (datetime.fromisoformat(body[key]).replace(tzinfo=UTC) for key in ("startDate", "endDate"))
        found = [row for row in ordered if first <= datetime.fromisoformat(row["start_time"]) <= last]
        page = found[PAGE * int(query["offset"]) :][:PAGE]
        return {"data": [row | {"sessionStartTime": row["start_time"]} for row in page], "numResults": len(found)}

    odd = Odd(says)
    [listing] = await odd.read("call_details", days(1))
    assert len(listing.calls) == 2500
    assert not listing.problems
    assert odd.asked <= 26
