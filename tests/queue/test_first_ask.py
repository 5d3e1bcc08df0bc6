"""The poll planner: when a session whose call's end is known is first asked for, and what its answer teaches."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.outcome import Archived, HandedBack, NotReady, Outcome, Retry, Unavailable
from archiver.queue.sql import sql
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, ids

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

MINUTES = timedelta(minutes=1)
SECONDS = timedelta(seconds=1)


async def first_ask(harness: QueueHarness, name: str = "bot") -> timedelta:
    found = await harness.value("SELECT first_ask FROM archive_bots WHERE name = $1", name)
    assert isinstance(found, timedelta)
    return found


async def ended(harness: QueueHarness, age: timedelta, *ids: str, **columns: Any) -> None:
    """Sessions whose call ended so long ago."""
    now = await harness.value("SELECT now()")
    await harness.add(*(ids or ["s-1"]), ended_at=now - age, **columns)


async def due_in(harness: QueueHarness, one: str = "s-1") -> timedelta:
    found = await harness.value("SELECT run_at - enqueued_at FROM archive_queue WHERE session_id = $1", one)
    assert isinstance(found, timedelta)
    return found


async def answer(harness: QueueHarness, worker: int, age: timedelta, outcome: Outcome, count: int = 1) -> timedelta:
    """What the bot's figure is after so many sessions, first asked at this age, were answered so. All in one batch."""
    names = [f"s-{await harness.value('SELECT count(*) FROM archive_queue')}-{n}" for n in range(count)]
    await harness.add(*names, ended_at=await harness.value("SELECT now()") - timedelta(days=30))
    await harness.fetch("UPDATE archive_queue SET enqueued_at = '-infinity' WHERE session_id = ANY ($1)", names)
    sessions = await harness.claim(worker, count)
    assert sorted(ids(sessions)) == sorted(names)
    await harness.fetch(
        "UPDATE archive_queue SET enqueued_at = claimed_at, ended_at = claimed_at - $1::interval WHERE state = 'claimed'", age
    )
    await harness.queue.settle([(Attempt(session, calls=1), outcome) for session in sessions])
    return await first_ask(harness)


async def test_a_call_that_just_ended_waits_for_what_the_bot_has_lately_needed(harness: QueueHarness) -> None:
    await harness.worker()
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '5 minutes'")
    began = time.monotonic()
    await ended(harness, 1 * MINUTES)
    passed = timedelta(seconds=time.monotonic() - began)  # between the call's end being reckoned and the row being there
    assert timedelta(0) <= 4 * MINUTES - await due_in(harness) <= passed


@pytest.mark.parametrize("age", [10 * MINUTES, timedelta(days=300)])
async def test_a_call_that_ended_long_ago_is_due_at_once(harness: QueueHarness, age: timedelta) -> None:
    worker = await harness.worker()
    await ended(harness, age)
    assert await due_in(harness) == timedelta(0)
    assert ids(await harness.claim(worker)) == ["s-1"]


async def test_a_producer_whose_clock_is_ahead_does_not_put_its_sessions_off(harness: QueueHarness) -> None:
    await harness.worker()
    await ended(harness, -6 * 60 * MINUTES)
    assert await due_in(harness) == 2 * MINUTES


@pytest.mark.parametrize("strange", ["infinity", "-infinity", "0001-01-01Z", "4713-01-01 BC", "294276-12-31Z"])
async def test_a_strange_end_breaks_nothing(harness: QueueHarness, strange: str) -> None:
    worker = await harness.worker()
    await harness.fetch(f"INSERT INTO archive_queue (bot, session_id, ended_at) VALUES ('bot', 's-1', '{strange}')")
    await harness.make_due()
    await harness.fetch("UPDATE archive_queue SET enqueued_at = enqueued_at - interval '1 hour'")
    (session,) = await harness.claim(worker)
    assert await harness.settle(Attempt(session, calls=1), NotReady("media_in_progress")) == "pending"


async def test_a_later_run_at_of_the_producer_stands(harness: QueueHarness) -> None:
    await harness.worker()
    later = datetime.now(UTC) + timedelta(days=1)
    await ended(harness, 0 * MINUTES, run_at=later)
    assert (await harness.row("s-1"))["run_at"] == later


async def test_what_was_due_by_an_older_figure_is_put_off_without_a_call(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await ended(harness, 3 * MINUTES, "early-1", "early-2")
    await harness.add("now-1")
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '10 minutes'")
    claim = await harness.queue.claim(worker, {"bot": harness.quota("bot", "60/minute")}, 10)
    assert ids(claim.sessions) == ["now-1"]
    assert claim.again_in == timedelta(0)
    assert timedelta(minutes=6) < await due_in(harness, "early-1") <= timedelta(minutes=7)
    assert await harness.states() == {"pending": 2, "claimed": 1}
    assert await harness.history("early-1") == ["enqueued"]
    claim = await harness.queue.claim(worker, {"bot": harness.quota("bot", "60/minute")}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert claim.again_in > timedelta(minutes=6)


async def test_what_a_person_brings_back_is_not_put_off(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await ended(harness, 3 * MINUTES)
    await harness.operators.cancel(ids=["s-1"], bot=None, kind=None, reason="why", actor="me")
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '1 hour'")
    assert await harness.operators.retry(ids=["s-1"], bot=None, kind=None, states=[State.CANCELLED], actor="me") == ["s-1"]
    assert ids(await harness.claim(worker)) == ["s-1"]


async def test_only_first_asks_are_planned(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await ended(harness, 10 * MINUTES)
    (session,) = await harness.claim(worker)
    await harness.settle(Attempt(session, calls=1), NotReady("media_in_progress"))
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '1 hour'")
    await harness.make_due()
    assert ids(await harness.claim(worker)) == ["s-1"]


async def test_an_ask_in_vain_raises_the_age_and_one_in_time_lowers_it(harness: QueueHarness) -> None:
    worker = await harness.worker()
    assert await answer(harness, worker, 2 * MINUTES, NotReady("media_in_progress")) == 2 * MINUTES * 1.2
    await harness.fetch("DELETE FROM archive_queue")  # the first one is due again within a moment
    assert await answer(harness, worker, 5 * MINUTES, Archived()) == 2 * MINUTES * 1.2 * 0.99


@pytest.mark.parametrize(
    ("age", "outcome"),
    [
        (1 * MINUTES, NotReady("media_in_progress")),  # earlier than is usual: that was to be expected
        (2 * 60 * MINUTES, NotReady("media_in_progress")),  # no use to anybody who asks within the hour
        (2 * 60 * MINUTES, Archived()),  # a backfill
        (5 * MINUTES, NotReady("call_in_progress")),  # then its end wasn't
        (5 * MINUTES, Unavailable("media_unavailable")),
        (5 * MINUTES, Retry("http_500")),
    ],
)
async def test_other_answers_teach_nothing(harness: QueueHarness, age: timedelta, outcome: Outcome) -> None:
    assert await answer(harness, await harness.worker(), age, outcome) == 2 * MINUTES


async def test_answers_of_one_batch_go_one_step(harness: QueueHarness) -> None:
    worker = await harness.worker()
    assert await answer(harness, worker, 2 * MINUTES, NotReady("media_in_progress"), count=50) == 2 * MINUTES * 1.2
    await harness.fetch("DELETE FROM archive_queue")
    assert await answer(harness, worker, 2 * MINUTES, Archived(), count=50) == 2 * MINUTES * 1.2 * 0.9


async def test_later_asks_teach_nothing(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await ended(harness, 3 * MINUTES)
    for _ in range(4):
        await harness.make_due()
        (session,) = await harness.claim(worker)
        await harness.settle(Attempt(session, calls=1), NotReady("media_in_progress"))
    assert await first_ask(harness) == 2 * MINUTES * 1.2


async def test_it_stays_between_a_second_and_an_hour(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '59 minutes'")
    assert await answer(harness, worker, 60 * MINUTES, NotReady("media_in_progress")) == 60 * MINUTES
    await harness.fetch("UPDATE archive_bots SET first_ask = interval '1 second'")
    assert await answer(harness, worker, 10 * SECONDS, Archived()) == SECONDS


async def test_outcomes_are_written_though_nothing_can_be_learned_from_them(harness: QueueHarness) -> None:
    """Somebody has the bot's row locked until the wait for it ends. By then another may have claimed what was handed back."""
    worker = await harness.worker()
    await harness.add("s-1", "s-2")
    sessions = await harness.claim(worker)
    await harness.fetch("UPDATE archive_queue SET enqueued_at = claimed_at, ended_at = claimed_at - interval '2 minutes'")
    outcomes: list[Outcome] = [Archived(), HandedBack("worker_stopped")]
    async with harness.locked("SELECT FROM archive_bots FOR UPDATE"):
        settling = asyncio.create_task(
            harness.queue.settle(
                [(Attempt(session, calls=1), outcome) for session, outcome in zip(sessions, outcomes, strict=True)]
            )
        )
        await harness.value("SELECT pg_cancel_backend($1)", await harness.blocked())
        assert await settling == [State.ARCHIVED, State.PENDING]
    assert await first_ask(harness) == 2 * MINUTES


async def test_bots_learn_apart(harness: QueueHarness) -> None:
    worker = await harness.worker("bot", "other")
    await answer(harness, worker, 2 * MINUTES, NotReady("media_in_progress"))
    assert await first_ask(harness, "other") == 2 * MINUTES


async def test_it_finds_the_age_at_which_one_ask_in_twenty_is_in_vain(harness: QueueHarness) -> None:
    await harness.worker()
    vain = 0
    for number in range(400):
        needed = timedelta(seconds=20 + 280 * (number * 0.618034 % 1))  # evenly over 20 to 300 s
        too_early = await first_ask(harness) < needed
        vain += number >= 100 and too_early
        lesson = {"bots": ["bot"], "too_early": [too_early], "in_time": [int(not too_early)]}  # as settling tells the answers
        await harness.database.rows(sql("settle/first_ask"), **lesson)
    assert 0.02 < vain / 300 < 0.09
