"""What readings of the listings leave in the database: facts of calls, and how far they have come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.postgres.database import Database
from archiver.queue.discoveries import Discoveries
from archiver.queue.reports import SessionCost
from archiver.queue.sessions import CallFacts, NewSession, Queue
from tests.queue.conftest import QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

START = datetime(2025, 3, 1, tzinfo=UTC)
END = START + timedelta(days=10)


@pytest.fixture
def discoveries(database: Database) -> Discoveries:
    return Discoveries(database)


def known(session_id: str, **changes: Any) -> CallFacts:
    fields: dict[str, Any] = {
        "kind": "recording", "started_at": START, "ended_at": None, "user_id": None, "facts": {},
    } | changes  # fmt: skip
    return CallFacts(session_id, **fields)


async def rows_of(harness: QueueHarness) -> dict[str, Any]:
    rows = await harness.fetch("SELECT session_id, started_at, ended_at, user_id, call, archive_date FROM archive_queue")
    return {row["session_id"]: dict(row) for row in rows}


async def test_what_is_learnt_of_a_call_is_kept_with_its_session(harness: QueueHarness) -> None:
    await harness.queue.enqueue([NewSession("bot", "s-1"), NewSession("bot", "s-2"), NewSession("other", "s-1")], actor="me")
    before = await rows_of(harness)
    ended = START + timedelta(minutes=5)
    first = known("s-1", ended_at=ended, user_id="u-1", facts={"caller": "+1", "queue": ["Claims"]})
    assert await harness.queue.add_call_facts("bot", [first, known("unknown")]) == 1
    [row] = await harness.fetch("SELECT * FROM archive_queue WHERE bot = 'bot' AND session_id = 's-1'")
    assert (row["started_at"], row["ended_at"], row["user_id"]) == (START, ended, "u-1")
    assert row["call"] == {"caller": "+1", "queue": ["Claims"]}
    assert row["archive_date"] == before["s-1"]["archive_date"], "the path was fixed when it was enqueued"
    [other] = await harness.fetch("SELECT * FROM archive_queue WHERE bot = 'other'")
    assert (other["started_at"], other["call"]) == (None, {})


async def test_only_news_is_written(harness: QueueHarness) -> None:
    await harness.queue.enqueue([NewSession("bot", "s-1", started_at=START, user_id="mine")], actor="me")
    call = known("s-1", user_id="theirs", facts={"caller": "+1"})
    assert await harness.queue.add_call_facts("bot", [call]) == 1
    assert await harness.queue.add_call_facts("bot", [call]) == 0
    assert await harness.queue.add_call_facts("bot", [known("s-1")]) == 0, "what is not told this time is not forgotten"
    assert await harness.queue.add_call_facts("bot", [known("s-1", facts={"tags": ["x"]})]) == 1
    [row] = await harness.fetch("SELECT user_id, call FROM archive_queue")
    assert (row["user_id"], row["call"]) == ("mine", {"caller": "+1", "tags": ["x"]})


async def test_a_session_at_work_learns_too_and_keeps_its_claim(harness: QueueHarness) -> None:
    await harness.queue.enqueue([NewSession("bot", "s-1")], actor="me")
    [session] = await harness.claim(await harness.worker())
    assert await harness.queue.add_call_facts("bot", [known("s-1", facts={"caller": "+1"})]) == 1
    [row] = await harness.fetch("SELECT state, epoch, call FROM archive_queue")
    assert (row["state"], row["epoch"], row["call"]) == ("claimed", session.epoch, {"caller": "+1"})


async def test_two_that_learn_of_the_same_calls_do_not_lock_each_other_out(harness: QueueHarness) -> None:
    ids = [f"s-{n}" for n in range(500)]
    await harness.queue.enqueue([NewSession("bot", each) for each in ids], actor="me")
    given = [[known(each, facts={"tags": [n]}) for each in order] for n, order in enumerate((ids, ids[::-1]))]
    await asyncio.gather(*(harness.queue.add_call_facts("bot", calls) for calls in given for _ in range(5)))
    rows = await rows_of(harness)
    assert {row["call"]["tags"][0] for row in rows.values()} <= {0, 1}


async def test_a_long_id_is_known_by_its_short_form(harness: QueueHarness) -> None:
    await harness.queue.enqueue([NewSession("bot", "x" * 300)], actor="me")
    assert await harness.reports.count_enqueued("bot", [("x" * 300, "recording"), ("x" * 301, "recording")]) == 1
    assert await harness.queue.add_call_facts("bot", [known("x" * 300, facts={"caller": "+1"})]) == 1


async def test_the_mean_cost_is_of_what_is_archived(harness: QueueHarness) -> None:
    assert await harness.reports.mean_cost("bot") == SessionCost(None, None)


async def test_a_bot_has_due_work_where_sessions_are_due_that_somebody_could_do(harness: QueueHarness) -> None:
    await harness.queue.enqueue([NewSession("bot", "s-1", priority="low")], actor="me")
    assert not await harness.reports.has_due_work("bot"), "nobody is there"
    worker = await harness.worker("bot", "other")
    assert await harness.reports.has_due_work("bot")
    assert not await harness.reports.has_due_work("other")
    await harness.operators.pause(["bot"], actor="me")
    assert not await harness.reports.has_due_work("bot")
    await harness.operators.resume(None, actor="me")
    await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    assert not await harness.reports.has_due_work("bot")
    await harness.operators.resume(None, actor="me")
    assert await harness.reports.has_due_work("bot")
    await harness.fetch("UPDATE archive_queue SET run_at = now() + interval '1 hour'")
    assert not await harness.reports.has_due_work("bot")
    await harness.make_due()
    assert await harness.reports.has_due_work("other", "bot"), "one of several"
    await harness.expire(worker)
    assert not await harness.reports.has_due_work("bot")


async def test_a_session_that_is_listed_more_than_once_lasts_from_its_first_beginning_to_its_last_end(
    harness: QueueHarness,
) -> None:
    producers = START - timedelta(days=3)
    await harness.queue.enqueue([NewSession("bot", "s-1", started_at=producers, ended_at=END)], actor="me")
    minute = timedelta(minutes=1)
    for begin, end in ((5, 9), (0, 4), (10, None), (5, 9)):
        call = known("s-1", started_at=START + begin * minute, ended_at=end and START + end * minute)
        await harness.queue.add_call_facts("bot", [call])
    [row] = await harness.fetch("SELECT started_at, ended_at, listed_at FROM archive_sessions")
    assert row["listed_at"] is not None
    assert (row["started_at"], row["ended_at"]) == (START, START + 9 * minute), "the platform's word, not the producer's"


async def test_sources_are_remembered(discoveries: Discoveries) -> None:
    begun = await discoveries.begin("bot", "discover", START, END, newest_first=False, afresh=False)
    assert await discoveries.sources("bot") == set()
    await discoveries.advance(begun, END, calls=0, added=0, problems=[], source="call_details")
    await discoveries.advance(begun, END, calls=0, added=0, problems=[], source=None)
    assert await discoveries.sources("bot") == {"call_details"}
    assert await discoveries.sources("other") == set()


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_reading_that_was_broken_off_goes_on_where_it_stopped(discoveries: Discoveries, newest_first: bool) -> None:
    how: dict[str, Any] = {"newest_first": newest_first, "afresh": False}
    begun = await discoveries.begin("bot", "discover", START, END, **how)
    assert (begun.resumed, begun.reached) == (False, END if newest_first else START)
    reached = START + timedelta(days=4)
    for _ in range(2):  # said twice, because the first answer was lost
        await discoveries.advance(begun, reached, calls=10, added=8, problems=[{"problem": "x"}], source="sessions")
    again = await discoveries.begin("bot", "discover", START, END, **how)
    assert (again.id, again.resumed, again.reached, again.calls, again.added) == (begun.id, True, reached, 10, 8)
    assert again.problems == [{"problem": "x"}]
    afresh = await discoveries.begin("bot", "discover", START, END, newest_first=newest_first, afresh=True)
    assert not afresh.resumed
    await discoveries.finish([afresh.id])
    assert not (await discoveries.begin("bot", "discover", START, END, **how)).resumed, "the older one is of no use any more"
    for other in (("other", "discover", START, END), ("bot", "nightly", START, END), ("bot", "discover", START, reached)):
        assert not (await discoveries.begin(*other, **how)).resumed
    assert not (await discoveries.begin("bot", "discover", START, END, newest_first=not newest_first, afresh=False)).resumed


async def test_one_that_ended_is_not_gone_on_with(discoveries: Discoveries) -> None:
    begun = await discoveries.begin("bot", "nightly", START, END, newest_first=False, afresh=False)
    assert await discoveries.watermark("bot", "nightly") is None
    await discoveries.advance(begun, END + timedelta(days=1), calls=1, added=1, problems=[], source=None)
    assert await discoveries.watermark("bot", "nightly") is None, "what it was made for isn't done"
    assert await discoveries.find_interrupted("bot", "nightly", START, newest_first=False) == END
    await discoveries.finish([begun.id])
    assert await discoveries.find_interrupted("bot", "nightly", START, newest_first=False) is None
    assert await discoveries.watermark("bot", "nightly") == END
    assert await discoveries.watermark("bot", "discover") is None
    assert not (await discoveries.begin("bot", "nightly", START, END, newest_first=False, afresh=False)).resumed


async def test_whoever_is_alone_is_waited_for(database: Database) -> None:
    waiting = asyncio.Event()
    entered: list[str] = []

    async def second() -> None:
        async with database.alone("x", on_wait=waiting.set):
            entered.append("second")

    async with database.alone("x", on_wait=pytest.fail):
        task = asyncio.create_task(second())
        async with asyncio.timeout(10):
            await waiting.wait()
        async with database.alone("y", on_wait=pytest.fail):
            entered.append("first")
    async with asyncio.timeout(10):
        await task
    assert entered == ["first", "second"]


async def test_the_facts_of_a_call_stand_in_the_view_for_auditors(harness: QueueHarness, queue: Queue) -> None:
    await queue.enqueue([NewSession("bot", "s-1")], actor="me")
    await queue.add_call_facts("bot", [known("s-1", facts={"agent": "Asha"})])
    [row] = await harness.fetch("SELECT call, started_at FROM archive_sessions")
    assert (row["call"], row["started_at"]) == ({"agent": "Asha"}, START)
