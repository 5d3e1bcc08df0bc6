"""What the listings are asked for, and what they refuse."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from archiver.errors import ApiDefect, CredentialsRejected, RateLimited
from archiver.kore.listings import reader as reader_module
from archiver.kore.listings.calls import Span
from archiver.kore.listings.sources import (
    sources_in_use,
    sources_of,
)
from tests.kore.listings.conftest import (
    ALL_SOURCES,
    SOURCES,
    START,
    Odd,
    bot_settings,
    days,
    draw_nothing,
    harness_of,
)

# --- refusals


@pytest.mark.parametrize(("name", "scope"), [("sessions", "Bot Sessions"), ("call_details", "SmartAssist Analytics")])
async def test_a_missing_scope_is_named(name: str, scope: str) -> None:
    async with harness_of(scopes=("SmartAssist Recordings",)) as harness:
        with pytest.raises(CredentialsRejected) as caught:
            await harness.read(name, days(1))
        assert scope in caught.value.hint


@pytest.mark.parametrize("name", SOURCES)
async def test_a_rate_limit_is_for_the_caller_to_wait_out(name: str) -> None:
    async with harness_of(rate_limits=("1/minute",), account_rate_limits=("1/minute",)) as harness:
        await harness.read(name, days(1))
        with pytest.raises(RateLimited):
            await harness.read(name, days(1))


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
        return [each.name for each in sources_in_use(sources_of(client, sessions=draw_nothing, details=draw_nothing), told)]

    assert names() == ["sessions"]
    assert names(account_id="a") == ["interaction_details", "call_details", "sessions"]
    assert names(("call_details",), account_id="a") == ["call_details", "sessions"], "an archive goes on as it began"
    assert names(("call_details", "interaction_details"), account_id="a")[0] == "interaction_details"
    assert names(("sessions",), account_id="a")[0] == "interaction_details"
    for discovery in ("sessions", "call_details", "interaction_details"):
        assert names(("call_details",), account_id="a", discovery=discovery) == [discovery]
