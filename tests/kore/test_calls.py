"""The listings against the simulated platform: every voice call of a span, each once, in no more requests than needed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.errors import ApiDefect, CredentialsRejected, RateLimited
from archiver.kore import reader as reader_module
from archiver.kore.calls import PAGE, Call, CallDetails, SessionsHistory, Source, Span
from archiver.kore.client import KoreClient, api_session
from archiver.kore.reader import Listing, Reader
from archiver.simulator.platform import Simulator, SimulatorSettings
from tests.kore.conftest import SLOW_TEXT, beating, bot_of

START = datetime(2025, 3, 1, tzinfo=UTC)
SOURCES: dict[str, type[SessionsHistory] | type[CallDetails]] = {"sessions": SessionsHistory, "call_details": CallDetails}


class Desk:
    """One platform, asked by either listing."""

    def __init__(self, simulator: Simulator, client: KoreClient) -> None:
        self.simulator = simulator
        self.client = client
        self.draws = 0

    async def draw(self) -> None:
        self.draws += 1

    def source(self, name: str) -> Source:
        return SOURCES[name](self.client, self.draw)

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
        assert found.facts["agent"] == [{"agentId": "a-7", "name": "Asha"}]
        assert found.facts["queue"] == ["Claims"]
        assert found.facts["disposition"] == ["solved"]
        assert [found.facts[key] for key in ("direction", "caller", "callee", "conversation_id")] == [
            "Inbound", "+15550100", "+15550199", "c-1",
        ]  # fmt: skip
    else:
        assert found.facts == {"language": "hi", "tags": ["vip"]}
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
    with pytest.raises(ApiDefect, match="without its list"):
        await _listed(answer)


# --- platforms that are not as documented


class Odd:
    """Answers as `says` has it, of the pages asked for; counts them."""

    def __init__(self, says: Callable[[dict[str, Any], dict[str, str]], Any]) -> None:
        self.bot = bot_settings()
        self.asked = 0
        self._says = says

    async def listing(self, path: str, *, json: dict[str, Any], **_: object) -> dict[str, Any]:
        self.asked += 1
        assert self.asked < 500, "it would go on for ever"
        query = dict(pair.split("=") for pair in path.partition("?")[2].split("&") if pair)
        answer: Any = self._says(json, query)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    async def read(self, name: str, span: Span) -> list[Listing]:
        client: Any = self
        return [each async for each in Reader(SOURCES[name](client, _nothing)).walk(span)]


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
    with pytest.raises(AssertionError, match="for ever"):
        await odd.read("call_details", days(1))


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


async def test_pages_without_an_end_are_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "ENDLESS", 30_000)
    when = START.isoformat()

    def more(body: dict[str, Any], _query: dict[str, str]) -> dict[str, Any]:
        page = range(body["skip"], body["skip"] + 100)
        return {
            "sessions": [{"sessionId": f"s-{n}", "channel": "korevg", "start_time": when} for n in page],
            "moreAvailable": True,
        }

    (listing,) = await Odd(more).read("sessions", Span(START, START + timedelta(milliseconds=1)))
    assert listing.hidden
    assert not listing.whole
    assert len(listing.seen) == 30_000
