"""Settling: what each outcome writes, all of it or nothing, and only by whom the session belongs to."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import DatabaseError
from archiver.outcome import Archived, Failed, HandedBack, NotReady, Outcome, Retry, Unavailable
from archiver.queue.sql import sql
from archiver.session import Attempt, Session, State
from tests.queue.conftest import QueueHarness, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

COUNTERS = ("failures", "checks", "crashes", "calls")


def counters(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in COUNTERS)


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "moved"),
    [
        (Archived(), "archived", None, (0, 0, 0, 1)),
        (Unavailable("media_unavailable", {"answer": "x"}), "unavailable", "media_unavailable", (0, 0, 0, 1)),
        (Failed("platform_failed", {"answer": "x"}), "failed", "platform_failed", (1, 0, 0, 1)),
        (Retry("api_unreachable", {"http_status": 502}), "pending", "api_unreachable", (1, 0, 0, 1)),
        (NotReady("call_in_progress"), "pending", "call_in_progress", (0, 1, 0, 1)),
        (HandedBack("rate_limited", timedelta(hours=1), {"a": 1}), "pending", "rate_limited", (0, 0, 0, 1)),
    ],
)
async def test_every_outcome_writes_its_columns(
    harness: QueueHarness, outcome: Outcome, state: str, reason: str | None, moved: tuple[int, ...]
) -> None:
    session = await harness.claim_one()
    before = await harness.queue.clock()
    assert await harness.settle(Attempt(session, calls=1), outcome) == State(state)
    after = await harness.queue.clock()
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["detail"]) == (state, reason, getattr(outcome, "detail", {}))
    assert counters(row) == moved
    assert row["worker_id"] is None
    assert row["epoch"] == session.epoch
    assert row["first_asked_at"] == session.claimed_at
    if state == "pending":
        assert row["finished_at"] is None
    else:
        assert before <= row["finished_at"] <= after
    assert (await harness.history("s-1"))[-1] == (
        {"Retry": "retry", "NotReady": "not_ready", "HandedBack": "handed_back"}.get(type(outcome).__name__, state)
    )


async def test_delays_are_from_the_databases_clock(harness: QueueHarness) -> None:
    delays = {"not_ready": [50, 100, 100], "retry": [50, 100]}
    for name, outcome in (("not_ready", NotReady("media_in_progress")), ("retry", Retry("api_unreachable"))):
        await harness.add(name)
        for most in delays[name]:
            (session,) = await harness.claim(await harness.worker())
            before = await harness.queue.clock()
            await harness.settle(Attempt(session, calls=1), outcome)
            after = await harness.queue.clock()
            run_at = (await harness.row(name))["run_at"]
            least = most if name == "not_ready" else 0  # a retry has full jitter
            assert before + timedelta(milliseconds=least) <= run_at <= after + timedelta(milliseconds=most)
            await harness.make_due()
        await harness.operators.cancel(ids=[name], bot=None, kind=None, reason="done", actor="me")


async def test_the_last_attempt_ends_failed_with_the_reason_of_the_last(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    for attempt, state in enumerate(["pending", "pending", "failed"], start=1):
        (session,) = await harness.claim(worker)
        assert session.failures == attempt - 1
        assert await harness.settle(Attempt(session), Retry(f"reason-{attempt}")) == state
        await harness.make_due()
    row = await harness.row("s-1")
    assert (row["failures"], row["reason"]) == (3, "reason-3")
    assert await harness.claim(worker) == []


async def test_waiting_costs_no_attempt_until_it_is_given_up(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    for _ in range(20):
        (session,) = await harness.claim(worker)
        assert await harness.settle(Attempt(session, calls=1), NotReady("call_in_progress")) == State.PENDING
        await harness.make_due()
    await harness.fetch("UPDATE archive_queue SET first_asked_at = now() - interval '23 hours 59 minutes'")
    (session,) = await harness.claim(worker)
    assert await harness.settle(Attempt(session, calls=1), NotReady("call_in_progress")) == State.PENDING
    await harness.make_due()
    await harness.fetch("UPDATE archive_queue SET first_asked_at = now() - interval '24 hours'")
    (session,) = await harness.claim(worker)
    assert await harness.settle(Attempt(session, calls=1), NotReady("call_in_progress")) == State.FAILED
    row = await harness.row("s-1")
    assert (row["reason"], row["checks"], row["failures"]) == ("not_ready", 22, 0)


async def test_the_first_ask_is_the_first_call_not_the_first_claim(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, calls=0), HandedBack("worker_stopped"))
    assert (await harness.row("s-1"))["first_asked_at"] is None
    (second,) = await harness.claim(session.worker_id)
    await harness.settle(Attempt(second, calls=2), HandedBack("worker_stopped"))
    (third,) = await harness.claim(session.worker_id)
    await harness.settle(Attempt(third, calls=1), Archived())
    row = await harness.row("s-1")
    assert (row["first_asked_at"], row["calls"]) == (second.claimed_at, 3)


@pytest.mark.parametrize("outcome", [Failed("conflict"), Unavailable("media_unavailable")])
@pytest.mark.parametrize("earlier", [True, False])
async def test_some_stored_and_one_that_cannot_be_is_partial(harness: QueueHarness, outcome: Outcome, earlier: bool) -> None:
    session = await harness.claim_one()
    file = stored_file()
    if earlier:
        await harness.settle(Attempt(session, [file]), HandedBack("worker_stopped"))
        (session,) = await harness.claim(session.worker_id)
    assert await harness.settle(Attempt(session, [] if earlier else [file]), outcome) == State.FAILED
    row = await harness.row("s-1")
    assert (row["reason"], row["detail"]["reason"]) == ("partial", outcome.reason)  # type: ignore[union-attr]
    assert await harness.value("SELECT store_key FROM archived_recordings") == file.store_key


async def test_a_file_is_recorded_as_it_was_stored(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    file = stored_file(3)
    await harness.settle(Attempt(session, [file]), Archived())
    (row,) = await harness.fetch("SELECT * FROM archived_recordings")
    assert {
        **file.as_row(),
        "bot": "bot",
        "session_id": "s-1",
        "kind": "recording",
        "queue_id": session.id,
        "verified_at": None,
    } == {name: value for name, value in row.items() if name != "archived_at"}


async def test_a_file_that_is_recorded_already_is_recorded_once_and_breaks_nothing(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file(1, "same")]), HandedBack("worker_stopped"))
    (again,) = await harness.claim(session.worker_id)
    assert await harness.settle(Attempt(again, [stored_file(2, "same"), stored_file(3)]), Archived()) == State.ARCHIVED
    assert await harness.value("SELECT array_agg(ordinal ORDER BY ordinal) FROM archived_recordings") == [1, 3]


async def test_a_settle_that_fails_writes_nothing(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    attempt = Attempt(session, [stored_file(), stored_file(0)])
    attempt.note("asked", status="success")
    await harness.fetch("ALTER TABLE archived_recordings ADD CHECK (ordinal > 0)")
    with pytest.raises(DatabaseError):
        await harness.settle(attempt, Archived())
    assert (await harness.row("s-1"))["state"] == "claimed"
    assert await harness.value("SELECT count(*) FROM archived_recordings") == 0
    assert await harness.history("s-1") == ["enqueued", "claimed"]


async def _cancel(harness: QueueHarness, session: Session) -> None:
    assert await harness.operators.cancel(ids=["s-1"], bot=None, kind=None, reason="why", actor="me") == ["s-1"]


async def _rescue(harness: QueueHarness, session: Session) -> None:
    await harness.expire(session.worker_id)
    assert len(await harness.queue.rescue(actor="other")) == 1


async def _rescue_and_claim(harness: QueueHarness, session: Session) -> None:
    await _rescue(harness, session)
    assert len(await harness.claim(await harness.worker())) == 1


async def _settled_retried_and_claimed_again(harness: QueueHarness, session: Session) -> None:
    await harness.settle(Attempt(session), HandedBack("worker_stopped"))
    assert len(await harness.claim(session.worker_id)) == 1


@pytest.mark.parametrize("taken", [_cancel, _rescue, _rescue_and_claim, _settled_retried_and_claimed_again])
async def test_who_lost_the_session_writes_neither_state_nor_files_nor_history(harness: QueueHarness, taken: Any) -> None:
    session = await harness.claim_one()
    await taken(harness, session)
    before = await harness.row("s-1"), await harness.history("s-1")
    zombie = Attempt(session, [stored_file()], calls=3)
    zombie.note("asked", status="success")
    assert await harness.queue.settle([(zombie, Archived())]) == [None]
    assert (await harness.row("s-1"), await harness.history("s-1")) == before
    assert await harness.value("SELECT count(*) FROM archived_recordings") == 0


async def test_what_is_told_again_because_the_answer_was_lost_is_written_once(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    attempt = Attempt(session, [stored_file()], calls=1)
    assert await harness.queue.settle([(attempt, Retry("why"))]) == [State.PENDING]
    before = await harness.row("s-1"), await harness.history("s-1")
    assert await harness.queue.settle([(attempt, Retry("why"))]) == [State.PENDING]
    assert (await harness.row("s-1"), await harness.history("s-1")) == before
    assert await harness.value("SELECT count(*) FROM archived_recordings") == 1


async def test_two_settles_of_one_claim_at_once_write_once(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    attempts = [Attempt(session, [stored_file()], calls=1) for _ in range(4)]
    ends = await asyncio.gather(*(harness.settle(one, Archived()) for one in attempts), return_exceptions=True)
    assert State.ARCHIVED in ends
    assert await harness.value("SELECT count(*) FROM archived_recordings") == 1
    assert (await harness.row("s-1"))["calls"] == 1


async def test_a_batch_is_written_as_each_would_be_by_itself(harness: QueueHarness) -> None:
    await harness.add(*(f"s-{n}" for n in range(6)))
    sessions = await harness.claim(await harness.worker())
    await harness.operators.cancel(ids=["s-2"], bot=None, kind=None, reason="why", actor="me")
    attempts = [Attempt(session, calls=1) for session in sessions]
    for number, attempt in enumerate(attempts):
        attempt.note("asked", number=number)
    attempts[0].stored += [stored_file(1, "one"), stored_file(2, "two")]
    attempts[2].stored.append(stored_file(1, "never"))
    attempts[4].stored.append(stored_file(1, "three"))
    outcomes: list[Outcome] = [
        Archived(), NotReady("media_in_progress"), Archived(), Unavailable("media_unavailable"), Failed("conflict"), Retry("r"),
    ]  # fmt: skip
    batch = list(zip(attempts, outcomes, strict=True))
    random.shuffle(batch)
    states = dict(zip((a.session.session_id for a, _ in batch), await harness.queue.settle(batch), strict=True))
    assert [states[f"s-{n}"] for n in range(6)] == ["archived", "pending", None, "unavailable", "failed", "pending"]
    assert [(await harness.row(f"s-{n}"))["reason"] for n in range(6)] == [
        None, "media_in_progress", "why", "media_unavailable", "partial", "r",
    ]  # fmt: skip
    files = await harness.fetch("SELECT session_id, store_key FROM archived_recordings ORDER BY store_key")
    assert [tuple(file.values()) for file in files] == [("s-0", "one"), ("s-4", "three"), ("s-0", "two")]
    assert await harness.history("s-5") == ["enqueued", "claimed", "asked", "retry"]
    assert await harness.history("s-2") == ["enqueued", "claimed", "cancelled"]


async def test_nothing_to_settle_is_nothing(harness: QueueHarness) -> None:
    assert await harness.queue.settle([]) == []


async def test_two_claims_of_one_session_in_one_batch_are_told_apart(harness: QueueHarness) -> None:
    """A worker may hold the stale claim and the new one: cancelled and brought back while the first attempt still ran."""
    stale = await harness.claim_one()
    await harness.operators.cancel(ids=["s-1"], bot=None, kind=None, reason="why", actor="me")
    await harness.fetch("UPDATE archive_queue SET state = 'pending', finished_at = NULL, epoch = epoch + 1")
    (fresh,) = await harness.claim(stale.worker_id)
    batch = [(Attempt(stale, [stored_file(1, "stale")]), Archived()), (Attempt(fresh, [stored_file(1, "fresh")]), Archived())]
    assert await harness.queue.settle(batch) == [None, State.ARCHIVED]
    assert await harness.value("SELECT array_agg(store_key) FROM archived_recordings") == ["fresh"]


async def test_hostile_json_is_kept_as_far_as_the_database_can(harness: QueueHarness) -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    session = await harness.claim_one()
    attempt = Attempt(session, calls=1)
    attempt.note("asked", nul="a\0b", half="\ud800", nan=float("nan"), inf=[float("-inf")], deep=deep, **{"k\0\udfff": "v"})
    await harness.settle(attempt, Failed("platform_failed", {"text": "\0\ud83d", "emoji": "\U0001f600"}))
    (story,) = await harness.reports.find_session("s-1", None, None)
    asked = story.events[2]
    assert asked["event"] == "asked"
    assert {name: asked["data"][name] for name in ("nul", "half", "nan", "inf", "k\ufffd?")} == {
        "nul": "a\ufffdb", "half": "?", "nan": "nan", "inf": ["-inf"], "k\ufffd?": "v",
    }  # fmt: skip
    assert "nested too deep" in json.dumps(asked["data"]["deep"])
    assert story.session["detail"] == {"text": "\ufffd?", "emoji": "\U0001f600"}


async def test_what_one_of_many_lines_holds_changes_no_other(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    attempt = Attempt(session, calls=1)
    for number in range(120):  # more braces together than one document may be deep
        attempt.note("asked", number=number, text="a\0b" if number == 60 else "\\u0000 and \\ud83d, spelled out")
    await harness.settle(attempt, Archived())
    (story,) = await harness.reports.find_session("s-1", None, None)
    asked = [line["data"] for line in story.events if line["event"] == "asked"]
    assert [line["number"] for line in asked] == list(range(120))
    assert {line["text"] for line in asked} == {"a\ufffdb", "\\u0000 and \\ud83d, spelled out"}


async def test_the_history_is_in_time_order_over_several_workers(harness: QueueHarness) -> None:
    await harness.add("s-1")
    for number in range(3):
        (session,) = await harness.claim(await harness.worker())
        attempt = Attempt(session, calls=1)
        attempt.note("asked", number=number)
        attempt.note("file_failed", number=number)
        await harness.settle(attempt, HandedBack("worker_stopped") if number < 2 else Archived())
    (story,) = await harness.reports.find_session("s-1", None, None)
    names = [event["event"] for event in story.events]
    turn = ["claimed", "asked", "file_failed"]
    assert names == ["enqueued", *turn, "handed_back", *turn, "handed_back", *turn, "archived"]
    times = [event["at"] for event in story.events]
    assert times == sorted(times)
    assert [event["actor"] for event in story.events if event["event"] == "asked"] == [f"worker {n}" for n in (1, 2, 3)]


async def test_sessions_of_one_id_in_two_bots_do_not_touch_each_other(harness: QueueHarness) -> None:
    await harness.add("s-1", bot="a")
    await harness.add("s-1", bot="b")
    worker = await harness.worker("a", "b")
    first, second = await harness.claim(worker, 10, "a", "b")
    await harness.settle(Attempt(first, [stored_file(1, "same")]), Archived())
    await harness.settle(Attempt(second, [stored_file(1, "same")]), Failed("conflict"))
    rows = await harness.fetch("SELECT state FROM archive_queue WHERE bot = $1", first.bot)
    assert [row["state"] for row in rows] == ["archived"]


async def test_the_history_tells_all_that_was_noted_whichever_row_keeps_it(harness: QueueHarness) -> None:
    attempt = Attempt(await harness.claim_one(), [stored_file(1), stored_file(2)], calls=1)
    attempt.note("asked", http_status=200, status="success", answer="what it said")
    for file in attempt.stored:
        attempt.note("stored", existed=False, breaks=1, **file.as_row())
    attempt.note("url_expired", ordinal=2, http_status=403)
    await harness.settle(attempt, Archived())
    (story,) = await harness.reports.find_session("s-1", None, None)
    told = [(event["event"], event["epoch"], event["data"]) for event in story.events]
    assert told == [
        ("enqueued", 0, {"priority": "normal", "state": "pending"}),
        ("claimed", 1, {}),
        *((event["event"], 1, event["data"]) for event in attempt.events),
        ("archived", 1, {"failures": 0}),
    ]
    assert [event["at"] for event in story.events] == sorted(event["at"] for event in story.events)
    assert await harness.value("SELECT count(*) FROM archive_events") == 1
    assert await harness.value("SELECT octet_length(lines::text) FROM archive_events") < 300, "no hash, no key is said twice"


async def test_lines_of_earlier_versions_are_told_with_those_of_this_one(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.fetch(
        """INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
           SELECT id, e, n, 'worker 1', enqueued_at + n * interval '1 microsecond', '{}'
           FROM archive_queue, unnest('{enqueued,claimed}'::text[]) WITH ORDINALITY AS t (e, m), LATERAL (SELECT m - 1) o (n)"""
    )
    await harness.fetch("UPDATE archive_queue SET enqueued_by = NULL")
    assert await harness.history("s-1") == ["enqueued", "claimed"]
    await harness.settle(Attempt(session, calls=1), Retry("api_unreachable", {}))
    assert await harness.history("s-1") == ["enqueued", "claimed", "retry"]


async def test_a_repair_leaves_what_the_history_says_of_asks_and_files(harness: QueueHarness) -> None:
    """Though an answer may look like a file's ordinal and hash."""
    attempt = Attempt(await harness.claim_one(), [file := stored_file(1)], calls=1)
    attempt.note("asked", http_status=200, status="1", answer="")
    attempt.note("stored", **file.as_row())
    await harness.settle(attempt, Archived())
    query = "SELECT at, event, data FROM archive_history WHERE event <> 'repaired' ORDER BY at, id, place"
    before = await harness.fetch(query)
    (moved,) = await harness.database.rows(
        sql("repair/move"),
        queue_id=attempt.session.id,
        epoch=attempt.session.epoch,
        from_key=file.store_key,
        sha256=file.sha256,
        store_key="folder/a.repaired.wav",
        file_name="a.repaired.wav",
        source="quarantine",
        actor="me",
    )
    assert (moved["queue_id"], await harness.fetch(query)) == (attempt.session.id, before)
