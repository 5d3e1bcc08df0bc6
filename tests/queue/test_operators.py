"""What people do to the queue: cancel, retry, pause, resume, and wait for its end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.outcome import Archived, Failed, HandedBack, Outcome, Retry, Unavailable
from archiver.queue import operators
from archiver.queue.call_times import CallTimes
from archiver.queue.reports import RecordedTotals
from archiver.queue.sessions import CallFacts, NewSession
from archiver.queue.sql import sql
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

ENDED = [State.FAILED, State.UNAVAILABLE, State.CANCELLED, State.ARCHIVED]


async def enqueue(harness: QueueHarness, *names: str, **terms: Any) -> tuple[int, int]:
    return await harness.queue.enqueue([NewSession("bot", name, **terms) for name in names], actor="me")


async def retry(harness: QueueHarness, **terms: Any) -> list[str]:
    chosen: dict[str, Any] = {"ids": None, "bot": None, "kind": None, "states": ENDED, **terms}
    return await harness.operators.retry(**chosen, actor="me@here")


async def cancel(harness: QueueHarness, **terms: Any) -> list[str]:
    return await harness.operators.cancel(
        **{"ids": None, "bot": None, "kind": None, **terms}, reason="a wrong list", actor="me@here"
    )


# --- cancel


async def test_cancel_takes_out_what_waits_and_what_is_claimed_and_says_who_and_why(harness: QueueHarness) -> None:
    session = await harness.claim_one("claimed")
    await harness.add("waiting", "other")
    assert await cancel(harness, ids=["claimed", "waiting", "unknown"]) == ["claimed", "waiting"]
    for name in ("claimed", "waiting"):
        row = await harness.row(name)
        assert (row["state"], row["reason"], row["detail"]) == ("cancelled", "a wrong list", {"cancelled_by": "me@here"})
        assert row["finished_at"] is not None
        (shown,) = await harness.reports.find_session(name, None, None)
        last = shown.events[-1]
        assert (last["event"], last["actor"], last["data"]) == ("cancelled", "me@here", {"reason": "a wrong list"})
    assert (await harness.row("claimed"))["epoch"] == session.epoch + 1
    assert (await harness.row("other"))["state"] == "pending"


async def test_cancel_leaves_what_has_ended(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session), Archived())
    assert await cancel(harness) == []
    assert (await harness.row("s-1"))["state"] == "archived"


async def test_cancel_can_be_narrowed_to_a_bot_and_a_kind(harness: QueueHarness) -> None:
    await harness.add("a-r", "a-v", bot="a")
    await harness.add("a-v2", bot="a", kind="voicemail")
    await harness.add("b-r", bot="b")
    assert await cancel(harness, bot="a", kind="voicemail") == ["a-v2"]
    assert await cancel(harness, bot="b") == ["b-r"]
    assert await cancel(harness, ids=["a-r"], bot="b") == []


async def test_a_large_cancel_and_retry_go_in_batches(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "BATCH", 7)
    names = [f"s-{n}" for n in range(30)]
    await harness.add(*names)
    assert await cancel(harness) == names
    assert await retry(harness) == names
    assert await harness.states() == {"pending": 30}


async def test_claims_cancels_settles_and_rescues_at_once_never_lock_each_other_out(harness: QueueHarness) -> None:
    names = [f"s-{n}" for n in range(120)]
    await harness.add(*names)
    done = asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            worker = await harness.worker()
            for number, session in enumerate(await harness.claim(worker, 10)):
                if number % 3:
                    ends = [harness.settle(Attempt(session, calls=1), HandedBack("x"))]
                    await asyncio.gather(*ends, return_exceptions=True)
            await harness.expire(worker)
            await harness.queue.rescue(actor="me")
            await harness.fetch("UPDATE archive_queue SET crashes = 0 WHERE state = 'pending' AND crashes > 2")

    async def operate() -> None:
        for turn in range(15):
            await cancel(harness, ids=names[turn % 3 :: 3])
            await retry(harness, ids=names[::-1])
            await enqueue(harness, *names[::-1], priority="high")
        done.set()

    async with asyncio.timeout(60):
        await asyncio.gather(work(), work(), operate())
    assert await harness.value("SELECT count(*) FROM archive_queue") == 120
    wrong = "SELECT count(*) FROM archive_queue WHERE (state = 'claimed') <> (worker_id IS NOT NULL)"
    assert await harness.value(wrong) == 0


# --- retry


async def test_retry_brings_back_with_fresh_counters_and_keeps_what_is_stored(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.fetch("UPDATE archive_queue SET checks = 5, crashes = 2, failures = 1")
    await harness.settle(Attempt(session, [stored_file(1, "kept")], calls=4), Failed("conflict"))
    assert await retry(harness, ids=["s-1"]) == ["s-1"]
    row = await harness.row("s-1")
    assert (row["state"], row["failures"], row["checks"], row["crashes"]) == ("pending", 0, 0, 0)
    assert (row["reason"], row["detail"], row["first_asked_at"], row["finished_at"]) == (None, {}, None, None)
    assert row["calls"] == 4
    (again,) = await harness.claim(session.worker_id)
    assert [known.store_key for known in again.known] == ["kept"]
    (shown,) = await harness.reports.find_session("s-1", None, None)
    (event,) = [event for event in shown.events if event["event"] == "retried"]
    assert (event["actor"], event["data"]) == ("me@here", {"was": "failed", "reason": "partial"})


async def test_retry_is_found_by_the_reason_also_behind_partial(harness: QueueHarness) -> None:
    await harness.add("s-1", "s-2", "s-3")
    outcomes: dict[str, Outcome] = {
        "s-1": Failed("conflict"),
        "s-2": Failed("platform_failed"),
        "s-3": Unavailable("media_unavailable"),
    }
    for session in await harness.claim(await harness.worker()):
        files = [stored_file()] if session.session_id == "s-1" else []
        await harness.settle(Attempt(session, files), outcomes[session.session_id])
    assert await retry(harness, errors=["nonsense"]) == []
    assert await retry(harness, errors=["conflict"]) == ["s-1"]
    assert await retry(harness, errors=["platform_failed"], states=[State.UNAVAILABLE]) == []
    assert await retry(harness, states=[State.UNAVAILABLE]) == ["s-3"]


async def find(harness: QueueHarness, *states: str) -> list[Any]:
    """The first step of a command, by itself."""
    terms: dict[str, Any] = dict.fromkeys(("session_ids", "bot", "kind", "reasons", "since", "until"))
    called = CallTimes().parameters()
    return await harness.database.rows(sql("operate/find_sessions"), **terms, **called, states=states, after=0, page=10)


async def test_a_session_that_moved_since_it_was_chosen_is_not_brought_back(harness: QueueHarness) -> None:
    await harness.add("s-1", "s-2")
    await cancel(harness)
    found = await find(harness, "cancelled")
    await retry(harness, ids=["s-1"])
    await cancel(harness, ids=["s-1"])
    ids_, epochs = [row["id"] for row in found], [row["epoch"] for row in found]
    rows = await harness.database.rows(sql("operate/retry"), ids=ids_, epochs=epochs, actor="me")
    assert [row["session_id"] for row in rows] == ["s-2"]


async def test_a_session_that_is_claimed_after_it_was_chosen_is_cancelled_all_the_same(harness: QueueHarness) -> None:
    await harness.add("s-1")
    (row,) = await find(harness, "pending", "claimed")
    await harness.claim(await harness.worker())
    for states, cancelled in ((["pending"], 0), (["pending", "claimed"], 1)):
        terms = {"ids": [row["id"]], "states": states, "reason": "why", "actor": "me"}
        assert len(await harness.database.rows(sql("operate/cancel"), **terms)) == cancelled


async def test_a_dry_run_changes_nothing_and_names_what_would_be(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "BATCH", 7)
    names = [f"s-{n}" for n in range(20)]
    await harness.add(*names)
    assert await cancel(harness, dry_run=True) == names
    assert await harness.states() == {"pending": 20}
    await cancel(harness)
    before = await harness.fetch("SELECT * FROM archive_queue ORDER BY id")
    assert await retry(harness, dry_run=True) == names
    assert await harness.fetch("SELECT * FROM archive_queue ORDER BY id") == before
    assert await harness.history("s-1") == ["enqueued", "cancelled"]


async def test_time_is_that_of_the_end_and_of_a_waiting_one_that_of_its_enqueueing(harness: QueueHarness) -> None:
    await harness.add("old", "new")
    await harness.fetch("UPDATE archive_queue SET enqueued_at = now() - interval '1 day' WHERE session_id = 'old'")
    noon = await harness.queue.clock() - timedelta(hours=12)
    assert await cancel(harness, since=noon, dry_run=True) == ["new"]
    assert await cancel(harness, until=noon) == ["old"]
    assert await retry(harness, until=noon) == []
    end = (await harness.row("old"))["finished_at"]
    assert await retry(harness, until=end) == []
    assert await retry(harness, since=end) == ["old"]


async def test_a_call_began_when_its_listing_says_else_at_the_date_in_its_path(harness: QueueHarness) -> None:
    said, listed = datetime(2026, 3, 31, 12, tzinfo=UTC), datetime(2026, 3, 30, 12, tzinfo=UTC)
    await harness.add("said", "listed", started_at=said)
    await harness.add("unsaid")
    await harness.queue.add_call_facts("bot", [CallFacts("listed", "recording", listed, None, None, {})])
    until = CallTimes(default=(None, said))
    since = CallTimes(default=(said, said + timedelta(seconds=1)))
    assert await cancel(harness, called=until, dry_run=True) == ["listed"]
    assert await cancel(harness, called=since, dry_run=True) == ["said"]
    assert await cancel(harness, called=CallTimes(default=(said + timedelta(seconds=1), None))) == ["unsaid"]
    assert await retry(harness, called=since) == []
    assert await retry(harness, called=CallTimes(default=(said, None))) == ["unsaid"]


async def test_the_days_of_bots_begin_when_each_has_midnight(harness: QueueHarness) -> None:
    midnight = datetime(2026, 3, 31, tzinfo=UTC)
    for at in (-5, 0, 5):
        for bot in ("east", "west", "gone"):
            await harness.add(f"{bot}{at}", bot=bot, started_at=midnight + timedelta(hours=at))
    day, hour = timedelta(days=1), timedelta(hours=1)
    starts = {"east": midnight - 5 * hour, "west": midnight + 5 * hour}
    times = CallTimes({bot: (start, start + day) for bot, start in starts.items()}, (midnight, midnight + day))
    assert set(await cancel(harness, called=times, dry_run=True)) == {"east-5", "east0", "east5", "west5", "gone0", "gone5"}
    before = CallTimes({bot: (None, start) for bot, start in starts.items()}, (None, midnight))
    assert set(await cancel(harness, called=before, dry_run=True)) == {"west-5", "west0", "gone-5"}
    assert await cancel(harness, called=times, bot="west") == ["west5"]


async def test_retry_touches_nothing_that_waits_or_runs(harness: QueueHarness) -> None:
    await harness.claim_one("claimed")
    await harness.add("waiting")
    assert await retry(harness, states=list(State)) == []


async def test_an_invalid_session_id_is_never_retried(harness: QueueHarness) -> None:
    await harness.add("in valid")
    assert await retry(harness) == []
    assert await retry(harness, ids=["in valid"], errors=["invalid_session_id"]) == []


async def test_retry_and_resume_wake_the_workers(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.queue.record_bots(["bot"], complete=True)
    await cancel(harness)
    for act in (lambda: retry(harness), lambda: harness.operators.resume(None, actor="me")):
        wake = asyncio.Event()
        async with harness.database.listening(wake):
            await act()
            await asyncio.wait_for(wake.wait(), 20)


# --- pause, resume


async def test_pause_and_resume_name_their_bots_and_release_holds(harness: QueueHarness) -> None:
    await harness.queue.record_bots(["a", "b"], complete=True)
    assert sorted(await harness.operators.pause(None, actor="me")) == ["a", "b"]
    assert await harness.operators.pause(["unknown"], actor="me") == []
    await harness.operators.pause(["a"], actor="someone else")
    assert await harness.value("SELECT paused_by FROM archive_bots WHERE name = 'a'") == "me"
    await harness.queue.hold("a", "recording", "credentials_rejected", {})
    await harness.queue.hold("a", "voicemail", "credentials_rejected", {})
    assert await harness.operators.resume(["a"], actor="me") == {"a": 2}
    assert await harness.operators.resume(None, actor="me") == {"a": 0, "b": 0}
    assert await harness.value("SELECT count(*) FROM archive_holds") == 0


# --- the end of a drain


async def test_what_a_drain_waits_for_and_what_it_has_to_leave(harness: QueueHarness) -> None:
    since = await harness.queue.clock()
    for bot in ("here", "paused", "held", "nowhere"):
        await harness.add(f"{bot}-1", f"{bot}-2", bot=bot)
    await harness.add("voice", bot="held", kind="voicemail")
    worker = await harness.worker("here", "paused", "held")
    await harness.operators.pause(["paused"], actor="me")
    await harness.queue.hold("held", "recording", "credentials_rejected", {})
    backlog = await harness.queue.backlog(["here", "paused", "held"], since)
    assert (backlog.workable, backlog.claimed, backlog.failed, backlog.due_in) == (3, 0, 0, timedelta(0))
    assert backlog.left_pending == [
        {"bot": "held", "kind": "recording", "sessions": 2, "because": "held"},
        {"bot": "nowhere", "kind": "recording", "sessions": 2, "because": "unknown_bot"},
        {"bot": "paused", "kind": "recording", "sessions": 2, "because": "paused"},
    ]
    for session in await harness.claim(worker, 10, "here", "held"):
        await harness.settle(Attempt(session), Failed("x") if session.bot == "here" else Retry("x"))
    await harness.fetch("UPDATE archive_queue SET run_at = now() + interval '1 hour' WHERE session_id = 'voice'")
    backlog = await harness.queue.backlog(["here", "paused", "held"], since)
    assert (backlog.workable, backlog.claimed, backlog.failed) == (1, 0, 2)
    assert backlog.due_in is not None
    assert timedelta(minutes=59) < backlog.due_in <= timedelta(hours=1)
    assert (await harness.queue.backlog(["here"], await harness.queue.clock())).failed == 0, "failures of before do not count"


async def test_what_another_worker_has_is_waited_for(harness: QueueHarness) -> None:
    await harness.claim_one()
    backlog = await harness.queue.backlog(["bot"], await harness.queue.clock())
    assert (backlog.workable, backlog.claimed, backlog.due_in) == (0, 1, None)


async def test_bots_that_no_configuration_knows_are_counted_by_name(harness: QueueHarness) -> None:
    await harness.queue.record_bots(["known", "gone"], complete=True)
    await harness.queue.record_bots(["known"], complete=True)
    await harness.add("s-1", bot="known")
    await harness.add("s-1", "s-2", bot="gone")
    await harness.add("s-1", bot="never")
    await harness.add("s-1", bot="served here")
    assert await harness.queue.unknown_bots(["served here"]) == {"gone": 2, "never": 1}
    await cancel(harness)
    assert await harness.queue.unknown_bots([]) == {}


async def test_very_many_unknown_bots_are_not_all_told(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_queue (bot, session_id) SELECT 'bot-' || n, 's-1' FROM generate_series(1, 500) n")
    assert len(await harness.queue.unknown_bots([])) == 50


async def test_status_counts_every_session_in_exactly_one_state(harness: QueueHarness) -> None:
    await harness.add("s-1", "s-2", "s-3", "in valid")
    first, *_ = await harness.claim(await harness.worker(), 1)
    await harness.settle(Attempt(first, [stored_file()], calls=2), Archived())
    counts = await harness.reports.count_sessions()
    assert {count.state: count.sessions for count in counts} == {"archived": 1, "failed": 1, "pending": 2}
    assert sum(count.calls for count in counts) == 2
    assert await harness.reports.recorded_totals() == RecordedTotals(files=1, bytes=44, seconds=0)
