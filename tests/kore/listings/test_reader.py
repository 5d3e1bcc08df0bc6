"""Whole stretches made of pages: every call once, in few requests, whatever the platform does."""

from __future__ import annotations

import asyncio
import bisect
import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.errors import ApiDefect, NoListing
from archiver.kore.listings.calls import DEVELOPER, UNANSWERED, Call, Page, Row, Span
from archiver.kore.listings.reader import Listing, Reader
from archiver.kore.listings.sources import (
    PAGE,
    CallDetails,
    SessionsHistory,
)
from tests.kore.conftest import SLOW_TEXT, beating
from tests.kore.listings.conftest import (
    SOURCES,
    START,
    ListingHarness,
    Odd,
    call,
    days,
    harness_of,
    ids,
    listed,
    rows,
    shown,
)

# --- what is listed


@pytest.mark.parametrize("name", SOURCES)
async def test_what_is_told_of_a_call(harness: ListingHarness, name: str) -> None:
    told = call(
        1, START + timedelta(hours=9, milliseconds=250), caller="+15550100", callee="+15550199", agent="Asha", agent_id="a-7",
        queue="Claims", dispositions=["solved"], conversation_id="c-1", language="hi", tags=["vip"], user_id="u-5",
    )  # fmt: skip
    harness.simulator.set_history({"calls": [told]})
    [listing] = await harness.read(name, days(1))
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


async def test_only_voice_is_listed_and_other_channels_are_counted(harness: ListingHarness) -> None:
    calls = [call(n, START + timedelta(minutes=n), channel=channel) for n, channel in enumerate(
        ["korevg", "audiocodes", "twiliovoice", "IVR", "web", "msteams", "web"])]  # fmt: skip
    harness.simulator.set_history({"calls": calls})
    [listing] = await harness.read("sessions", days(1))
    assert len(listing.calls) == 4
    assert listing.others == {"web": 2, "msteams": 1}
    assert not listing.problems


async def test_voicemails_are_told_apart_by_call_details(harness: ListingHarness) -> None:
    harness.simulator.set_history({"calls": [call(1, START, voicemail=True), call(2, START)]})
    [listing] = await harness.read("call_details", days(1))
    assert sorted(kind for _, kind in listing.calls) == ["recording", "voicemail"]


@pytest.mark.parametrize("places", ["metaInfo", "endUserNumber", "customerinfo", "metaInfo.customerinfo"])
async def test_all_that_the_platform_tells_is_asked_for_and_found(harness: ListingHarness, places: str) -> None:
    asked = call(
        1, START, numbers_at=places, caller="+15550100", callee="+15550199", agent="Asha", agent_id="a-7", agent_at="segment",
        queue="Claims", consulted=["+15550123"], joined=["Quinn"], disposition_remarks=["he cried"], campaign="Reminders",
        contact_status="answered",
    )  # fmt: skip
    dialled = call(2, START, 0, direction="Outbound", campaign="Reminders", contact_status="busy")
    harness.simulator.set_history({"calls": [asked, dialled, call(3, START, ended_at_bot=True)]})
    [listing] = await harness.read("call_details", days(1))
    facts, unanswered = (listing.calls[each["session_id"], "recording"].facts for each in (asked, dialled))
    assert (facts["caller"], facts["callee"], facts["agent"][0]["agentId"]) == ("+15550100", "+15550199", "a-7")
    assert (facts["consulted"], facts["joined"]) == ([{"name": "+15550123"}], [{"name": "Quinn"}])
    assert (facts["campaign"]["name"], facts["disposition_remarks"]) == ("Reminders", ["he cried"])
    assert (unanswered[UNANSWERED], UNANSWERED in facts) == ("busy", False)
    assert len(listing.calls) == 2
    [fuller] = await harness.read("interaction_details", days(1))
    assert len(fuller.calls) == 3


@pytest.mark.parametrize("name", SOURCES)
async def test_a_call_that_runs_has_no_end(harness: ListingHarness, name: str) -> None:
    harness.simulator.set_history({"calls": [{**call(1, START), "ended_at": None}]})
    [listing] = await harness.read(name, days(1))
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
        async with harness_of(**platform) as harness:
            harness.simulator.set_history({"calls": calls})
            span = Span(*bounds)
            listings = await harness.read(name, span, newest_first=newest_first)
            _check_listings(harness, name, span, listings, calls)

    asyncio.run(check())


def _check_listings(harness: ListingHarness, name: str, span: Span, listings: list[Listing], calls: list[dict[str, Any]]) -> None:
    found = ids(listings)
    assert len(found) == len(set(found)), "listed twice"
    grain = harness.source(name).grain
    first = min((each.span.start for each in listings), default=span.start)
    last = max((each.span.end for each in listings), default=span.start)
    assert span.start <= first < span.start + grain
    assert span.end <= last < span.end + grain or not listings
    ordered = sorted(listings, key=lambda each: each.span.start)
    assert all(before.span.end == after.span.start for before, after in itertools.pairwise(ordered)), "a gap"
    truly = {each.session_id for each in harness.simulator.calls(first, last)}
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
        async with harness_of() as harness:
            harness.simulator.set_history({"calls": calls})
            listings = await harness.read(name, Span(START, START + timedelta(hours=hours)))
            assert len(ids(listings)) == count
            assert len(listings) == 1
            assert harness.requests == harness.draws == count // PAGE + 1

    asyncio.run(check())


@pytest.mark.parametrize("num_results", ["page", "all"])
async def test_four_thousand_calls_in_one_hour_of_a_day_are_listed_whole(num_results: str) -> None:
    busiest = {"from": "2025-03-01T10:00:00Z", "to": "2025-03-01T11:00:00Z", "calls": 4000}
    made = {"from": "2025-03-01T00:00:00Z", "to": "2025-03-02T00:00:00Z", "calls": 1000, "busiest": busiest}
    async with harness_of(num_results=num_results) as harness:
        harness.simulator.set_history({"made": made})
        listings = await harness.read("call_details", days(1))
        found = ids(listings)
        assert set(found) == {each.session_id for each in harness.simulator.calls(START, START + timedelta(days=1))}
        assert len(found) == len(set(found)) == 5000
        least = sum(len(listing.seen) // PAGE + 1 for listing in listings)
        wasted = harness.requests - least
        # A stretch that turned out too busy costs its ten pages, or, where the platform tells the number, one.
        assert wasted <= (10 if num_results == "page" else 1) * 11
        assert len(listings) <= 20


async def test_what_a_second_cannot_show_is_reported(harness: ListingHarness) -> None:
    harness.simulator.set_history({"calls": [call(n, START + timedelta(microseconds=500 * n)) for n in range(1200)]})
    listings = await harness.read("call_details", Span(START - timedelta(minutes=1), START + timedelta(minutes=1)))
    [broken] = [listing for listing in listings if not listing.whole]
    assert broken.span == Span(START, START + timedelta(seconds=1))
    assert len(broken.calls) == 1000
    [problem] = broken.problems
    assert problem["problem"] == "not_listed_whole"
    # The sessions history has no such bound.
    assert len(ids(await harness.read("sessions", days(1)))) == 1200


# --- what disagrees


async def test_a_total_that_disagrees_is_looked_into_once_and_reported(harness: ListingHarness) -> None:
    harness.simulator.set_history({"calls": [call(n, START + timedelta(hours=20 * n)) for n in range(150)]})
    harness.simulator.alter({"session_totals": "wrong"})
    listings = await harness.read("sessions", days(150))
    assert len(ids(listings)) == 150
    problems = [problem for listing in listings for problem in listing.problems]
    assert {problem["problem"] for problem in problems} == {"total_disagrees"}
    assert problems[0]["total"] - problems[0]["listed"] == 7
    # The first stretch is read twice, and up to an empty page; after that the totals are known to mean something else.
    assert harness.requests == len(listings) + 3


async def test_calls_that_come_in_while_pages_are_read_shift_none_out_of_sight(harness: ListingHarness) -> None:
    old = [call(n, START + timedelta(seconds=n)) for n in range(350)]
    late = [call(1000 + n, START + timedelta(hours=2, seconds=n), appears_after=2) for n in range(30)]
    harness.simulator.set_history({"calls": old + late})
    [listing] = await harness.read("sessions", days(1))
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
    [listing] = await listed({"sessions": rows})
    assert not listing.calls
    [problem] = listing.problems
    assert problem["problem"] == "rows_unreadable"
    assert complaint in problem["first"]


async def test_a_call_that_began_at_another_time_than_was_asked_for_is_reported() -> None:
    row = {"sessionId": "s-1", "channel": "korevg", "start_time": "2025-03-09T10:00:00.000Z"}
    [listing] = await listed({"sessions": [row]})
    assert not listing.calls
    assert list(listing.outside) == [("s-1", "recording")]
    assert [(problem["problem"], problem["gap"]) for problem in listing.problems] == [("calls_outside", True)]
    assert not listing.whole


async def test_hostile_rows_are_made_harmless() -> None:
    row = {"sessionId": "a\0b\ud800", "channel": "korevg", "start_time": "2025-03-01T10:00:00", "end_time": [7],
           "userId": "x\n", "tags": [["x" * 9999] * 999] * 999, "session_lang": {"a": {"b": {"c": {"d": {"e": 1}}}}}}  # fmt: skip
    [listing] = await listed({"sessions": [row], "total": True})
    [found] = listing.calls.values()
    assert found == Call("a\ufffdb?", "recording", START + timedelta(hours=10), None, None, found.facts)
    assert len(repr(found.facts)) < 2_000_000
    assert listing.total is None


async def test_rows_that_are_slow_to_redact_stop_nobody_else() -> None:
    """A night's worker runs in the same process."""
    told = [SLOW_TEXT * 10 for _ in range(50)]
    page = [{**row, "tags": told, "session_lang": SLOW_TEXT * 1000} for row in rows(60)]
    async with beating(1.0):
        [listing] = await listed({"sessions": page})
    assert len(listing.calls) == 60


async def test_of_a_long_session_id_no_more_is_kept_than_tells_it_from_others() -> None:
    page = [{**row, "sessionId": f"{'x' * 30_000}{n}"} for n, row in enumerate(rows(3))]
    page += [{"sessionId": f"{'x' * 30_000}{n}", "channel": f"chat {'y' * 30_000}"} for n in range(3)]
    [listing] = await listed({"sessions": page})
    assert len(listing.calls) == 3
    assert len(listing.seen) == 6
    assert max(map(len, listing.seen)) <= 1000
    assert max(len(session_id) for session_id, _ in listing.calls) <= 1000


async def test_a_row_deeper_than_python_can_show_is_one_row_that_cannot_be_read() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    good = {"sessionId": "s-1", "channel": "korevg", "start_time": 1740823200000, "tags": deep}
    [listing] = await listed({"sessions": [good, deep, {"sessionId": deep, "channel": "korevg", "start_time": deep}]})
    assert [found.started_at for found in listing.calls.values()] == [START + timedelta(hours=10)]
    assert [problem["rows"] for problem in listing.problems] == [2]


@pytest.mark.parametrize("answer", [{}, {"sessions": None}, {"sessions": {}}])
async def test_an_answer_without_its_list_is_a_defect(answer: dict[str, Any]) -> None:
    with pytest.raises(NoListing, match="without its list"):
        await listed(answer)


# --- platforms that are not as documented


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


async def test_spans_that_meet_within_a_second_share_no_call(harness: ListingHarness) -> None:
    middle = START + timedelta(milliseconds=500)
    harness.simulator.set_history({"calls": [call(1, START), call(2, START + timedelta(milliseconds=700))]})
    for name in SOURCES:
        before = await harness.read(name, Span(START - timedelta(hours=1), middle))
        after = await harness.read(name, Span(middle, START + timedelta(hours=1)))
        assert sorted(ids(before) + ids(after)) == [call(n, START)["session_id"] for n in (1, 2)]


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


class MixedYears(Years):
    """The same in no order at all."""

    async def page(self, span: Span, number: int, seen: int) -> Page:
        self.asked += 1
        first, last = (bisect.bisect_left(self._moments, bound) for bound in (span.start, span.end))
        mixed = random.Random(first * 7 + last).sample(range(first, last), last - first)
        page = [Row(str(n), Call(str(n), "recording", self._moments[n])) for n in mixed[number * PAGE :][:PAGE]]
        return Page(page, {"all": last - first}.get(self._totals), number * PAGE + len(page) < last - first)


async def test_what_comes_in_no_order_takes_few_more_requests() -> None:
    """It cannot be gone on with behind its tenth page: a stretch that has more is asked for again, in parts."""
    randomly = random.Random(7)
    moments = [START + timedelta(seconds=randomly.randrange(365 * 86_400)) for _ in range(40_000)]
    source: Any = MixedYears(CallDetails, moments, "all")
    listings = [each async for each in Reader(source).walk(days(365))]
    assert sum(len(each.calls) for each in listings) == len(moments)
    assert source.asked <= 1.1 * len(moments) / PAGE


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


@pytest.mark.parametrize("name", SOURCES)
async def test_an_account_reads_the_same_calls_without_what_is_told_of_them(harness: ListingHarness, name: str) -> None:
    calls = [call(n, START + timedelta(minutes=n), caller="+15550100", agent="Asha", developer=n % 3 == 0) for n in range(9)]
    harness.simulator.set_history({"calls": calls})
    [whole] = await harness.read(name, days(1))
    source: Any = harness.source(name)
    source.facts = False
    [bare] = [each async for each in Reader(source).walk(days(1))]
    assert list(bare.calls.values()) == [replace(each, facts=bare.calls[key].facts) for key, each in whole.calls.items()]
    assert bare.developer_calls == whole.developer_calls
    assert all(set(each.facts) <= {DEVELOPER} for each in bare.calls.values())
