"""Readings of the listings inside their budgets: they wait, they give way, they go on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from archiver.account import discovery as discovery_module
from archiver.account.discovery import SHARE, Discovery, Listings
from archiver.cli.listing import opened_listings
from archiver.config import Settings
from archiver.errors import ApiDefect, ApiUnreachable, CredentialsRejected, DatabaseError, KoreError, NoListing, RateLimited
from archiver.kore.listings.calls import UNANSWERED, Call, Page, Row, Span
from archiver.kore.listings.sources import PAGE
from archiver.outcome import Unavailable
from archiver.postgres.database import Database
from archiver.queue import quota as quota_module
from archiver.queue.discoveries import Discoveries
from archiver.queue.sessions import NewSession, Queue
from archiver.session import Attempt
from archiver.simulator.platform import Simulator
from tests.conftest import settings_data

SPAN = Span(datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 31, tzinfo=UTC))


class WorkerHarness:
    """A platform with calls, a database, and listings made as commands make them."""

    def __init__(
        self, simulator: Simulator, database: Database, queue: Queue, data: dict[str, Any], stack: AsyncExitStack
    ) -> None:
        self.simulator = simulator
        self.queue = queue
        self.database = database
        self.discovery = Discovery(Discoveries(database), keep=("queue",), actor="me")
        self._data = data
        self._stack = stack

    async def listings(self, *bots: str, **changes: Any) -> dict[str, Listings]:
        [bot] = self._data["bots"]
        made = bot | {"account_id": self.simulator.settings.account_id, "account_rate_limits": ["60000/minute"]} | changes
        settings = Settings.model_validate(self._data | {"bots": [made | {"name": name} for name in bots or ("bot",)]})
        return await self._stack.enter_async_context(opened_listings(settings, self.database))

    async def count(self) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM archive_queue"))


@pytest.fixture
async def harness(
    simulator: Simulator, database: Database, database_url: str, queue: Queue, tmp_path: Any
) -> AsyncIterator[WorkerHarness]:
    simulator.settings.account_rate_limits = ()
    made = {"from": "2025-03-01T00:00:00Z", "to": "2025-03-31T00:00:00Z", "calls": 900, "seconds": [1, 2]}
    simulator.set_history({"made": made})
    async with AsyncExitStack() as stack:
        yield WorkerHarness(simulator, database, queue, settings_data(simulator, database_url, tmp_path / "store"), stack)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the listings would have slept."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(discovery_module, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    return slept


@pytest.mark.parametrize(("source", "asked"), [("call_details", "call_details"), ("sessions", "get_sessions")])
async def test_a_year_takes_hardly_more_requests_than_can_be(harness: WorkerHarness, source: str, asked: str) -> None:
    """At the least it is one a page, of stretches as long as the platform answers."""
    made = {"from": "2024-03-01T00:00:00Z", "to": "2025-03-01T00:00:00Z", "calls": 6000, "seconds": [1, 2]}
    harness.simulator.set_history({"made": made})
    year = Span(datetime(2024, 3, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC))
    listings = (await harness.listings(discovery=source))["bot"]
    found = await harness.discovery.run(listings, year, purpose="discover")
    assert (found.calls, found.added) == (6000, 6000)
    stretches = 53  # of seven days at most, here and there
    least = stretches * math.ceil(6000 / stretches / PAGE)
    assert harness.simulator.report()["listings"][asked] <= 1.1 * least


async def test_a_refusal_for_the_rate_is_waited_out(harness: WorkerHarness) -> None:
    harness.simulator.settings.account_rate_limits = ("2/second",)
    found = await harness.discovery.run((await harness.listings())["bot"], SPAN, purpose="discover")
    assert (found.calls, found.added, await harness.count()) == (900, 900, 900)
    assert harness.simulator.report()["listings"]["rate_limited"] > 0


async def test_a_long_wait_for_the_budget_is_told(harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def unblock(seconds: float) -> None:
        slept.append(seconds)
        async with harness.database.connection() as connection:
            await connection.execute("UPDATE archive_budgets SET blocked_until = '-infinity'")

    monkeypatch.setattr(discovery_module, "asyncio", SimpleNamespace(sleep=unblock, Lock=asyncio.Lock))
    listings = (await harness.listings())["bot"]
    async with harness.database.connection() as connection:
        await connection.execute(
            "INSERT INTO archive_budgets (key, blocked_until) VALUES ($1, now() + interval '1 hour')",
            listings.bot.account_budget_key,
        )
    with structlog.testing.capture_logs() as logs:
        await harness.discovery.run(listings, SPAN, purpose="discover")
    [told] = [line for line in logs if line["event"] == "listing_delayed"]
    assert told["because"] == "rate_limited"
    assert 3500 < told["wait_seconds"] <= 3600
    assert slept == [pytest.approx(told["wait_seconds"], abs=1)]


async def test_a_listing_that_is_told_to_wait_for_long_waits_alone(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its budget opens as soon as a probe passes; were it asked again at once, it would block the others again and again."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        harness.simulator.settings.account_rate_limits = ()

    monkeypatch.setattr(discovery_module, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    monkeypatch.setattr(quota_module, "MIN_PROBE_PAUSE", timedelta(milliseconds=100))
    monkeypatch.setattr(quota_module, "PROBE_TURN", timedelta(milliseconds=100))
    harness.simulator.settings.account_rate_limits = ("3/hour",)
    found = await harness.discovery.run((await harness.listings())["bot"], SPAN, purpose="discover")
    assert found.calls == 900
    assert len(slept) == 1
    assert 3500 < slept[0] <= 3600


async def test_a_listing_that_meets_nothing_but_the_rate_limit_is_given_up(
    harness: WorkerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night whose listing was refused for ever had no end."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        monkeypatch.setattr(discovery_module, "REFUSED", -1.0)
        async with harness.database.connection() as connection:
            await connection.execute("UPDATE archive_budgets SET blocked_until = '-infinity'")

    monkeypatch.setattr(discovery_module, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    harness.simulator.settings.account_rate_limits = ("1/hour",)
    with pytest.raises(RateLimited):
        await asyncio.wait_for(harness.discovery.run((await harness.listings())["bot"], SPAN, purpose="discover"), 20)
    assert len(slept) == 1


async def test_bots_of_one_account_share_its_budget(harness: WorkerHarness) -> None:
    harness.simulator.settings.account_rate_limits = ("12/second",)
    listings = await harness.listings("one", "two", account_rate_limits=["12/second"])
    await asyncio.gather(*(harness.discovery.run(each, SPAN, purpose="discover") for each in listings.values()))
    assert await harness.count() == 1800
    assert harness.simulator.report()["listings"]["rate_limited"] == 0


LIMITS = ["6000/minute", "18000/hour"]


@pytest.mark.parametrize(
    "drawing",
    [
        {"account_rate_limits": LIMITS},
        {"account_id": "", "account_rate_limits": None, "discovery": "sessions", "rate_limits": LIMITS},
    ],
    ids=["call details", "sessions history of a bot without an account"],
)
async def test_a_listing_gives_way_while_sessions_are_due_that_draw_from_its_budget(
    harness: WorkerHarness, pauses: list[float], drawing: dict[str, Any]
) -> None:
    listings = (await harness.listings(**drawing))["bot"]
    await harness.discovery.run(listings, SPAN, purpose="discover")
    assert not pauses, "nothing was due that anybody could do"
    await harness.queue.start_worker(host="here", pid=1, version="0", lease=timedelta(minutes=5), bots=["bot"])
    await harness.discovery.run(listings, SPAN, purpose="discover", afresh=True)
    pace = 3600 / 18000
    assert pauses
    assert all(0 <= pause <= SHARE * pace for pause in pauses)
    assert max(pauses) > SHARE * pace / 2


async def test_call_details_give_way_to_the_recordings_of_any_bot_of_the_account(
    harness: WorkerHarness, pauses: list[float]
) -> None:
    listings = await harness.listings("one", "two", account_rate_limits=LIMITS)
    await harness.queue.start_worker(host="here", pid=1, version="0", lease=timedelta(minutes=5), bots=["one", "two"])
    await harness.queue.enqueue([NewSession("two", "s-1")], actor="me")
    await asyncio.gather(*(anext(aiter(each.stretches(SPAN))) for each in listings.values()))
    assert len(pauses) >= 2, "both"
    assert pauses.count(0.0) == 1, "they take their turns together: only the first of both need not wait for one"


async def test_the_sessions_history_of_an_accounts_bot_gives_way_to_nobody(harness: WorkerHarness, pauses: list[float]) -> None:
    await harness.queue.start_worker(host="here", pid=1, version="0", lease=timedelta(minutes=5), bots=["bot"])
    await harness.queue.enqueue([NewSession("bot", "s-1")], actor="me")
    await harness.discovery.run((await harness.listings(discovery="sessions"))["bot"], SPAN, purpose="discover")
    assert not pauses


class _Away:
    """A source that does not answer for a while."""

    name, grain, longest, wanted, most = "call_details", timedelta(seconds=1), timedelta(days=40), 700, 1000

    def __init__(self, failures: int) -> None:
        self.failures = failures

    async def page(self, *_: object) -> Page:
        if self.failures:
            self.failures -= 1
            raise ApiUnreachable("no answer")
        return Page([Row("x", other="web")], None)


class _Says:
    """A source that says this to whoever asks."""

    def __init__(self, name: str, says: Page | KoreError) -> None:
        self.name = name
        self.asked = 0
        self._says = says

    async def page(self, *_: object) -> Page:
        self.asked += 1
        if isinstance(self._says, KoreError):
            raise self._says
        return self._says


def say(listings: Listings, number: int, says: Page | KoreError) -> _Says:
    """Have the bot's source of that number say this."""
    source: Any = _Says(listings._sources[number].name, says)
    listings._sources[number].source = source
    said: _Says = source
    return said


def row(session_id: str = "s-1", **facts: Any) -> Row:
    return Row(session_id, Call(session_id, "recording", SPAN.start + timedelta(hours=1), None, None, facts))


ONE_DAY = Span(SPAN.start, SPAN.start + timedelta(days=1))


@pytest.mark.parametrize(
    "refusal",
    [
        *(ApiDefect(f"the platform answered HTTP {status}", http_status=status) for status in (400, 404, 405, 412)),
        CredentialsRejected("refused"),
        NoListing("a listing without its list"),
        ApiDefect("the answer is not JSON", http_status=200),
    ],
    ids=str,
)
async def test_an_account_without_the_fuller_listing_is_listed_by_the_next(
    harness: WorkerHarness, pauses: list[float], refusal: KoreError
) -> None:
    listings = (await harness.listings())["bot"]
    assert listings.source == "interaction_details"
    fuller = say(listings, 0, refusal)
    say(listings, 1, Page([row()], None))
    with structlog.testing.capture_logs() as logs:
        found = await harness.discovery.run(listings, ONE_DAY, purpose="discover")
    assert (found.source, found.calls) == ("call_details", 1)
    assert fuller.asked <= 6
    [told] = [line for line in logs if line["event"] == "listing_refused"]
    assert (told["source"], told["instead"]) == ("interaction_details", "call_details")


async def test_an_archive_that_call_details_told_of_goes_on_with_them(harness: WorkerHarness) -> None:
    await harness.discovery.run((await harness.listings(discovery="call_details"))["bot"], ONE_DAY, purpose="discover")
    listings = (await harness.listings())["bot"]
    refused = say(listings, 1, ApiDefect("the platform answered HTTP 404", http_status=404))
    fuller, history = say(listings, 0, Page([], None)), say(listings, 2, Page([], None))
    with pytest.raises(ApiDefect, match="404"):
        await harness.discovery.run(listings, ONE_DAY, purpose="discover", afresh=True)
    assert (refused.asked, fuller.asked, history.asked) == (1, 0, 0)


async def test_that_nobody_answered_is_kept_whatever_else_is_for_as_long_as_the_listing_says_so(harness: WorkerHarness) -> None:
    listings = (await harness.listings())["bot"]
    kept: dict[str, Any]
    for kept in ({UNANSWERED: "busy", "queue": ["Claims"]}, {"queue": ["Claims"]}):
        say(listings, 0, Page([row(caller="+1", **kept)], None))
        await harness.discovery.run(listings, ONE_DAY, purpose="discover", afresh=True)
        async with harness.database.connection() as connection:
            assert await connection.fetchval("SELECT call FROM archive_queue") == kept


async def test_a_session_given_up_because_nobody_answered_is_asked_for_again_once_somebody_did(harness: WorkerHarness) -> None:
    listings = (await harness.listings())["bot"]
    worker = await harness.queue.start_worker(host="h", pid=1, version="0", lease=timedelta(minutes=1), bots=["bot"])
    for fact, again in (({UNANSWERED: "failed"}, False), ({UNANSWERED: "failed", "queue": ["Claims"]}, False), ({}, True)):
        say(listings, 0, Page([row(**fact)], None))
        await harness.discovery.run(listings, ONE_DAY, purpose="discover", afresh=True)
        async with harness.database.connection() as connection:
            assert await connection.fetchval("SELECT recheck_at IS NOT NULL FROM archive_queue") is again
            await connection.execute("UPDATE archive_queue SET run_at = now() WHERE state = 'pending'")
        claim = await harness.queue.claim(worker, {"bot": listings._account_quota}, 1)
        if again:
            assert [session.recheck for session in claim.sessions] == [True]
        gone = Unavailable("not_answered", {}, final=True)
        await harness.queue.settle([(Attempt(session), gone) for session in claim.sessions])


async def test_a_session_is_in_the_queue_with_what_the_listing_says_of_it_or_not_at_all(harness: WorkerHarness) -> None:
    listings = (await harness.listings())["bot"]
    async with harness.database.connection() as connection:
        # Whatever keeps the facts from being kept: a worker must not find the session meanwhile.
        await connection.execute("ALTER TABLE archive_queue ADD CONSTRAINT without CHECK (call = '{}')")
        say(listings, 0, Page([row(**{UNANSWERED: "busy"})], None))
        with pytest.raises(DatabaseError):
            await harness.discovery.run(listings, ONE_DAY, purpose="discover")
        assert await harness.count() == 0
        await connection.execute("ALTER TABLE archive_queue DROP CONSTRAINT without")
    say(listings, 0, Page([row(**{UNANSWERED: "busy"})], None))
    assert (await harness.discovery.run(listings, ONE_DAY, purpose="discover")).added == 1
    worker = await harness.queue.start_worker(host="h", pid=1, version="0", lease=timedelta(minutes=1), bots=["bot"])
    claim = await harness.queue.claim(worker, {"bot": listings._account_quota}, 1)
    assert [session.unanswered for session in claim.sessions] == ["busy"]


async def test_developers_sessions_are_archived_and_counted_apart(harness: WorkerHarness) -> None:
    listings = (await harness.listings())["bot"]
    say(listings, 0, Page([row(), row("s-2", developer=True)], None))
    found = await harness.discovery.run(listings, ONE_DAY, purpose="discover")
    assert (found.calls, await harness.count(), found.developer_calls) == (2, 2, 1)
    assert found.as_document()["developer_calls"] == 1


async def test_a_platform_that_is_away_for_a_while_is_waited_for(harness: WorkerHarness, pauses: list[float]) -> None:
    listings = (await harness.listings())["bot"]
    source: Any = _Away(8)
    listings._sources[0].source = source
    stretches = [each async for each in listings.stretches(SPAN)]
    assert [each.others["web"] for each in stretches] == [1] * len(stretches)
    assert pauses == [1, 1, 2, 4, 8, 16, 32, 60]


async def test_what_was_read_before_the_platform_went_away_is_kept(
    harness: WorkerHarness, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery_module, "OUTAGE", 0.0)
    listings = (await harness.listings())["bot"]
    half = Span(SPAN.start, SPAN.start + timedelta(days=15))
    seen: list[Span] = []

    def stop_the_platform(_: object, left: Span) -> None:
        seen.append(left)
        source: Any = _Away(99)
        listings._sources[0].source = source

    with pytest.raises(ApiUnreachable):
        await harness.discovery.run(listings, half, purpose="discover", on_stretch=stop_the_platform)
    before = await harness.count()
    assert 0 < before < 500
    again = await harness.discovery.run((await harness.listings())["bot"], half, purpose="discover")
    assert again.resumed
    assert again.calls == await harness.count() == len(harness.simulator.calls(half.start, half.end))
