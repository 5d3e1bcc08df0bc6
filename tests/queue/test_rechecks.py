"""Late changes: an unavailable session is asked for again, and stays unavailable for every reader until it is archived; an
archived one may be asked for again, and loses nothing by it.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.config import RetrySettings
from archiver.outcome import Archived, Failed, HandedBack, NotReady, Outcome, Retry, Unavailable
from archiver.queue.sessions import MAX_CRASHES, CallFacts, Queue
from archiver.queue.sql import sql
from archiver.session import Attempt, Session, State
from tests.queue.conftest import QueueHarness, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NONE = Unavailable("media_unavailable", {"answer": "none"})


async def unavailable(harness: QueueHarness, *names: str, bot: str = "bot", **columns: Any) -> int:
    """Sessions that have just become that; returns the worker that asked."""
    await harness.add(*(names or ["s-1"]), bot=bot, **columns)
    worker = await harness.worker(bot)
    for session in await harness.claim(worker, 100, bot):
        assert await harness.settle(Attempt(session, calls=1), NONE) == State.UNAVAILABLE
    return worker


async def recheck(harness: QueueHarness, worker: int) -> Session:
    """The one recheck there is, claimed now."""
    await harness.make_rechecks_due()
    (session,) = await harness.claim(worker)
    assert session.recheck
    return session


async def age(harness: QueueHarness, by: timedelta) -> None:
    """As if sessions had ended so much earlier."""
    await harness.fetch("UPDATE archive_queue SET finished_at = finished_at - $1::interval", by)


async def due_in(harness: QueueHarness, one: str = "s-1") -> timedelta | None:
    """How long after it became unavailable it is asked for again."""
    found = await harness.value("SELECT recheck_at - finished_at FROM archive_queue WHERE session_id = $1", one)
    assert found is None or isinstance(found, timedelta)
    return found and timedelta(seconds=round(found.total_seconds()))


async def last_event(harness: QueueHarness, one: str = "s-1") -> tuple[str, dict[str, Any]]:
    (shown,) = await harness.reports.find_session(one, None, None)
    return shown.events[-1]["event"], shown.events[-1]["data"]


async def test_it_is_asked_again_on_the_schedule_and_no_more_after_its_end(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    since = (await harness.row("s-1"))["finished_at"]
    for number, (first, then) in enumerate([(1, 3), (3, 7), (7, None)], start=1):
        assert await due_in(harness) == first * DAY
        await age(harness, first * DAY - (await harness.queue.clock() - (await harness.row("s-1"))["finished_at"]))
        session = await recheck(harness, worker)
        assert (await harness.row("s-1"))["state"] == "unavailable"
        fresh = Unavailable("media_unavailable", {"answer": number})
        assert await harness.settle(Attempt(session, calls=1), fresh) == State.UNAVAILABLE
        row = await harness.row("s-1")
        assert (row["state"], row["reason"], row["detail"]) == ("unavailable", "media_unavailable", {"answer": number})
        assert (row["rechecks"], row["calls"], row["worker_id"]) == (number, number + 1, None)
        assert row["last_asked_at"] == session.claimed_at > row["first_asked_at"]
        assert await due_in(harness) == (then and then * DAY)
    assert since > (await harness.row("s-1"))["finished_at"], "it has counted from the same end, which the test moved"
    assert await harness.history("s-1") == ["enqueued"] + 4 * ["claimed", "unavailable"]
    assert await harness.claim(worker) == []


@pytest.mark.parametrize("rechecked", [False, True])
async def test_what_there_can_be_no_recording_of_any_more_is_not_asked_for_again(harness: QueueHarness, rechecked: bool) -> None:
    final = Unavailable("probably_purged", {"message": "too old"}, final=True)
    if rechecked:
        session = await recheck(harness, await unavailable(harness))
    else:
        session = await harness.claim_one()
    assert await harness.settle(Attempt(session, calls=1), final) == State.UNAVAILABLE
    row = await harness.row("s-1")
    assert (row["reason"], row["detail"], row["recheck_at"]) == ("probably_purged", {"message": "too old"}, None)
    assert await harness.operators.retry(ids=["s-1"], actor="me") == ["s-1"], "a person may"


@pytest.mark.parametrize(
    ("reason", "facts", "later", "again"),
    [
        ("probably_purged", {}, 300 * DAY, True),
        ("probably_purged", {}, timedelta(0), False),
        ("not_answered", {}, timedelta(0), True),
        ("not_answered", {"unanswered": "busy"}, timedelta(0), False),
        ("media_unavailable", {}, 300 * DAY, False),
    ],
)
async def test_what_was_given_up_for_what_turns_out_wrong_is_asked_for_once_more(
    harness: QueueHarness, reason: str, facts: dict[str, str], later: timedelta, again: bool
) -> None:
    """A producer may take a day for a month, and a listing may call a dial busy that was answered in the end."""
    began = await harness.queue.clock() - 320 * DAY
    await harness.add("s-1", started_at=began)
    worker = await harness.worker()
    (session,) = await harness.claim(worker)
    await harness.settle(Attempt(session, calls=1), Unavailable(reason, {}, final=True))
    for _ in range(2):
        await harness.queue.add_call_facts("bot", [CallFacts("s-1", "recording", began + later, None, None, facts)])
        claimed = await harness.claim(worker)
        assert [(session.recheck, session.began_at) for session in claimed] == [(True, began + later)] * again
        for session in claimed:
            await harness.settle(Attempt(session, calls=1), Unavailable(reason, {}, final=True))
        again = False


async def test_a_listing_that_knows_of_no_campaigns_takes_nothing_back(harness: QueueHarness) -> None:
    await harness.add("s-1", started_at=(began := await harness.queue.clock()))
    await harness.queue.add_call_facts("bot", [CallFacts("s-1", "recording", began, None, None, {"unanswered": "busy"})])
    await harness.queue.add_call_facts(
        "bot", [CallFacts("s-1", "recording", began - HOUR, None, "u-1", {})], lists_unanswered=False
    )
    (session,) = await harness.claim(await harness.worker())
    assert (session.began_at, session.unanswered) == (began - HOUR, "busy")


async def test_a_time_that_no_call_began_at_is_not_believed(harness: QueueHarness) -> None:
    """Else a producer's zero would make the first "media_unavailable" the last: a call of 1970 is older than any retention."""
    await harness.add("zero", started_at=datetime(1970, 1, 1, tzinfo=UTC))
    await harness.add("swapped", started_at=datetime(2002, 10, 20, tzinfo=UTC))
    await harness.add("true", started_at=(began := await harness.queue.clock() - 2000 * DAY))
    worker = await harness.worker()
    claimed = {session.session_id: session for session in await harness.claim(worker)}
    enqueued_at = {one: (await harness.row(one))["enqueued_at"] for one in claimed}
    for _ in range(2):
        assert {one: session.began_at for one, session in claimed.items()} == {**enqueued_at, "true": began}
        for session in claimed.values():
            await harness.settle(Attempt(session, calls=1), NONE)
        await harness.make_rechecks_due()
        claimed = {session.session_id: session for session in await harness.claim(worker)}


async def test_a_claim_tells_of_its_call_what_an_answer_is_judged_by(harness: QueueHarness) -> None:
    began = await harness.queue.clock() - 5 * DAY
    await harness.add("s-1", started_at=began)
    await harness.add("s-2")
    await harness.fetch("""UPDATE archive_queue SET call = '{"unanswered": "no-answer"}' WHERE session_id = 's-1'""")
    worker = await harness.worker()
    first, second = sorted(await harness.claim(worker), key=lambda session: session.session_id)
    assert (first.began_at, first.unanswered, first.unavailable_since) == (began, "no-answer", None)
    assert (second.began_at, second.unanswered) == (second.archive_date, None)
    for session in (first, second):
        await harness.settle(Attempt(session, calls=1), NONE)
    await harness.fetch("UPDATE archive_queue SET started_at = 'infinity' WHERE session_id = 's-2'")
    await harness.make_rechecks_due()
    first, second = sorted(await harness.claim(worker), key=lambda session: session.session_id)
    assert (first.began_at, first.unanswered) == (began, "no-answer")
    assert first.unavailable_since == (await harness.row("s-1"))["finished_at"]
    assert second.began_at == second.archive_date


async def test_an_empty_schedule_asks_never(harness: QueueHarness) -> None:
    harness.queue = Queue(harness.database, RetrySettings(recheck_unavailable=()))
    await unavailable(harness)
    assert await due_in(harness) is None


async def test_what_passed_while_nobody_asked_is_left_out(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    await age(harness, 5 * DAY)
    await harness.settle(Attempt(await recheck(harness, worker), calls=1), NONE)
    assert await due_in(harness) == 7 * DAY


async def test_it_is_archived_when_it_has_been_published_late(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    before = await harness.queue.clock()
    session = await recheck(harness, worker)
    assert await harness.settle(Attempt(session, [stored_file(1, "late")], calls=1, listed=1), Archived()) == State.ARCHIVED
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["detail"], row["recheck_at"], row["rechecks"]) == ("archived", None, {}, None, 1)
    assert row["finished_at"] > before
    assert await harness.value("SELECT store_key FROM archived_recordings") == "late"
    assert await harness.history("s-1") == ["enqueued", "claimed", "unavailable", "claimed", "archived"]
    assert await harness.queue.settle([(Attempt(session, calls=1), Archived())]) == [State.ARCHIVED], "told again: written once"
    assert (await harness.row("s-1"))["rechecks"] == 1


@pytest.mark.parametrize(
    ("outcome", "event", "least", "most"),
    [
        (NotReady("media_in_progress"), "not_ready", timedelta(milliseconds=50), timedelta(milliseconds=50)),
        (Retry("api_unreachable", {"a": 1}), "retry", timedelta(0), timedelta(milliseconds=50)),
        (HandedBack("rate_limited", HOUR), "handed_back", HOUR, HOUR),
        (Failed("platform_failed", {"a": 1}), "recheck_failed", 1 * DAY - timedelta(minutes=1), 1 * DAY),
    ],
)
async def test_any_other_answer_leaves_it_as_it_was_but_for_its_history(
    harness: QueueHarness, outcome: Outcome, event: str, least: timedelta, most: timedelta
) -> None:
    session = await recheck(harness, await unavailable(harness))
    before = await harness.row("s-1"), await harness.queue.clock()
    assert await harness.settle(Attempt(session, calls=1), outcome) == State.UNAVAILABLE
    row, now = await harness.row("s-1"), await harness.queue.clock()
    for name in ("state", "reason", "detail", "finished_at", "run_at", "first_asked_at"):
        assert row[name] == before[0][name]
    assert (row["rechecks"], row["last_asked_at"], row["worker_id"]) == (1, session.claimed_at, None)
    assert before[1] + least <= row["recheck_at"] <= now + most
    name, data = await last_event(harness)
    assert (name, data["reason"]) == (event, getattr(outcome, "reason", "media_in_progress"))
    assert "recheck_at" in data


async def test_a_recheck_that_was_put_back_before_its_call_is_none(harness: QueueHarness) -> None:
    session = await recheck(harness, await unavailable(harness))
    await harness.settle(Attempt(session), HandedBack("worker_stopped"))
    row = await harness.row("s-1")
    assert (row["rechecks"], row["calls"], row["last_asked_at"]) == (0, 1, row["first_asked_at"])
    assert ids(await harness.claim(session.worker_id)) == ["s-1"]


async def test_a_recheck_that_goes_wrong_has_the_attempts_of_any_other_and_then_waits_for_the_next(
    harness: QueueHarness,
) -> None:
    worker = await unavailable(harness)
    for attempt in range(3):
        session = await recheck(harness, worker)
        assert session.failures == attempt
        assert await harness.settle(Attempt(session, calls=1), Retry("api_unreachable")) == State.UNAVAILABLE
    assert await due_in(harness) == DAY, "the first of the schedule that is still to come"
    assert (await recheck(harness, worker)).failures == 0


async def test_a_recheck_in_progress_is_waited_for_as_long_as_any_other(harness: QueueHarness) -> None:
    harness.queue = Queue(harness.database, RetrySettings(not_ready_delays=(HOUR, 2 * HOUR), not_ready_give_up=5 * HOUR))
    worker = await unavailable(harness)
    waits = []
    for _ in range(4):
        session = await recheck(harness, worker)
        now = await harness.queue.clock()
        await harness.settle(Attempt(session, calls=1), NotReady("media_in_progress"))
        waits.append(round(((await harness.row("s-1"))["recheck_at"] - now) / HOUR))
    assert waits == [1, 2, 2, 24]


@pytest.mark.parametrize("outcome", [NONE, Failed("conflict")])
@pytest.mark.parametrize("earlier", [True, False])
async def test_some_stored_and_one_that_cannot_be_is_partial(harness: QueueHarness, outcome: Outcome, earlier: bool) -> None:
    worker = await unavailable(harness)
    session, file = await recheck(harness, worker), stored_file(1, "some")
    if earlier:
        assert await harness.settle(Attempt(session, [file], calls=1), Retry("api_unreachable")) == State.UNAVAILABLE
        session = await recheck(harness, worker)
        assert [known.store_key for known in session.known] == ["some"]
    assert await harness.settle(Attempt(session, [] if earlier else [file], calls=1), outcome) == State.FAILED
    row = await harness.row("s-1")
    assert (row["reason"], row["detail"]["reason"], row["recheck_at"]) == ("partial", outcome.reason, None)  # type: ignore[union-attr]


# --- who gets it, and when


async def test_it_is_not_claimed_before_its_time_and_the_claim_says_when(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    claim = await harness.queue.claim(worker, {"bot": harness.quota()}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert DAY - timedelta(minutes=1) < claim.again_in <= DAY


async def test_what_is_held_by_one_is_not_claimed_by_another(harness: QueueHarness) -> None:
    await recheck(harness, await unavailable(harness))
    assert await harness.claim(await harness.worker()) == []


async def test_a_recheck_draws_its_call_and_waits_for_it(harness: QueueHarness) -> None:
    worker = await unavailable(harness, "s-1", "s-2", "s-3")
    await harness.make_rechecks_due()
    claim = await harness.queue.claim(worker, {"bot": harness.quota("bot", "1/minute")}, 10)
    assert len(claim.sessions) == 1
    claim = await harness.queue.claim(worker, {"bot": harness.quota("bot", "1/minute")}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert claim.again_in > timedelta(seconds=30)


async def test_a_paused_bot_and_a_held_kind_are_left_alone(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    await harness.make_rechecks_due()
    quota = harness.quota()
    terms = {"worker_id": worker, "bot": "bot", "kind": "recording", "slots": 5, "budget": quota.key, "windows": [], "limits": []}
    await harness.operators.pause(["bot"], actor="me")
    assert await harness.claim(worker) == []
    assert await harness.database.rows(sql("claim/rechecks"), **terms, due_by=None) == [], "nor between looking and claiming"
    await harness.operators.resume(["bot"], actor="me")
    await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    await harness.fetch("UPDATE archive_holds SET probe_at = now()")
    assert await harness.claim(worker) == []
    assert await harness.database.rows(sql("claim/rechecks"), **terms, due_by=None) == []
    await harness.operators.resume(["bot"], actor="me")
    assert ids(await harness.claim(worker)) == ["s-1"]


async def test_a_worker_whose_lease_ran_out_gets_none(harness: QueueHarness) -> None:
    worker = await unavailable(harness)
    await harness.make_rechecks_due()
    await harness.expire(worker)
    assert await harness.claim(worker) == []


async def test_slots_go_to_rechecks_when_the_bot_has_nothing_else_to_do(harness: QueueHarness) -> None:
    worker = await unavailable(harness, *(f"u-{n}" for n in range(10)))
    await harness.make_rechecks_due()
    quotas = {"bot": harness.quota()}
    assert (await harness.queue.claim(worker, quotas, 10, idle_rechecks=False)).sessions == []
    start = await harness.value("SELECT min(recheck_at) - interval '1 hour' FROM archive_queue")
    assert (await harness.queue.claim(worker, quotas, 10, due_by=start)).sessions == []
    assert len((await harness.queue.claim(worker, quotas, 10)).sessions) == 10


async def test_other_bots_with_work_go_first(harness: QueueHarness) -> None:
    await unavailable(harness, *(f"u-{n}" for n in range(10)), bot="idle")
    await harness.make_rechecks_due()
    await harness.add(*(f"s-{n}" for n in range(6)))
    claimed = await harness.claim(await harness.worker("bot", "idle"), 8, "bot", "idle")
    assert Counter(session.bot for session in claimed) == {"bot": 6, "idle": 2}


@pytest.mark.parametrize("limits", [(), ("1/minute",)], ids=["slots", "budget"])
@pytest.mark.parametrize("slots", [1, 16])
async def test_beside_other_work_about_one_claim_in_eight(harness: QueueHarness, slots: int, limits: tuple[str, ...]) -> None:
    worker = await unavailable(harness, *(f"u-{n}" for n in range(100)))
    await harness.make_rechecks_due()
    await harness.add(*(f"s-{n}" for n in range(400)))
    quotas = {"bot": harness.quota("bot", *limits)}
    got: list[Session] = []
    while len(got) < 240:
        await harness.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
        got += (await harness.queue.claim(worker, quotas, slots)).sessions
    share = sum(session.recheck for session in got) / len(got)
    if slots == 16 and not limits:
        assert share == 1 / 16, "one of a claim for many slots at once"
    else:
        assert 0.03 < share < 0.26, "a lot: one run in a hundred thousand is out of these"


async def test_no_drain_waits_for_one_unless_it_is_to_make_those_that_are_due(harness: QueueHarness) -> None:
    worker = await unavailable(harness, "s-1", "s-2")
    await harness.fetch("UPDATE archive_queue SET recheck_at = now() - interval '1 hour' WHERE session_id = 's-1'")
    start = await harness.queue.clock()

    async def waits() -> list[tuple[int, int]]:
        backlogs = [await harness.queue.backlog(["bot"], start, night=night) for night in (False, True)]
        assert [backlog.workable for backlog in backlogs] == [0, 0]
        return [(backlog.rechecks, backlog.claimed) for backlog in backlogs]

    assert await waits() == [(0, 0), (1, 0)]
    await harness.operators.pause(["bot"], actor="me")
    assert await waits() == [(0, 0), (0, 0)]
    await harness.operators.resume(None, actor="me")
    await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    assert await waits() == [(0, 0), (0, 0)]
    await harness.operators.resume(None, actor="me")
    assert (await harness.queue.backlog(["other"], start, night=True)).rechecks == 0
    (session,) = await harness.claim(worker)
    assert await waits() == [(0, 0), (0, 1)], "one that another has in hand is waited for"
    await harness.settle(Attempt(session, calls=1), Retry("api_unreachable"))
    assert await waits() == [(0, 0), (0, 0)], "what is put off is due later"


# --- leases, people, readers


async def test_a_dead_workers_recheck_is_due_as_it_was(harness: QueueHarness) -> None:
    session = await recheck(harness, await unavailable(harness))
    before = await harness.row("s-1")
    await harness.expire(session.worker_id)
    (rescued,) = await harness.queue.rescue(actor="other")
    assert (rescued.session_id, rescued.state, rescued.crashes) == ("s-1", "unavailable", 1)
    row = await harness.row("s-1")
    changed = {name for name in row if row[name] != before[name]}
    assert changed == {"worker_id", "epoch", "crashes"}
    assert await last_event(harness) == (
        "rescued",
        {"reason": "worker_lost", "from": f"worker {session.worker_id}", "crashes": 1},
    )
    assert [left.epoch for left in await harness.queue.list_leftovers()] == [session.epoch]
    assert await harness.queue.settle([(Attempt(session, [stored_file()], calls=1), Archived())]) == [None]
    assert (await harness.row("s-1")) == row
    (again,) = await harness.claim(await harness.worker())
    assert await harness.settle(Attempt(again, [stored_file()], calls=1), Archived()) == State.ARCHIVED


async def test_one_that_takes_workers_down_is_not_asked_again_but_stays_unavailable(harness: QueueHarness) -> None:
    await unavailable(harness)
    for _ in range(MAX_CRASHES):
        session = await recheck(harness, await harness.worker())
        await harness.expire(session.worker_id)
        await harness.queue.rescue(actor="other")
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["crashes"], row["recheck_at"]) == (
        "unavailable",
        "media_unavailable",
        MAX_CRASHES,
        None,
    )
    name, data = await last_event(harness)
    assert (name, data["reason"]) == ("rescued", "crashed_workers")


async def test_a_claim_whose_answer_was_lost_is_due_again(harness: QueueHarness) -> None:
    session = await recheck(harness, await unavailable(harness))
    await harness.queue.release_orphans(session.worker_id, [session.id])
    assert await harness.queue.find_lost_claims([session]) == set()
    await harness.queue.release_orphans(session.worker_id, [])
    assert await harness.queue.find_lost_claims([session]) == {session.id}
    assert ((await harness.row("s-1"))["state"], (await harness.row("s-1"))["reason"]) == (
        "unavailable",
        "media_unavailable",
    )
    assert await last_event(harness) == ("handed_back", {"reason": "claim_unanswered"})
    assert ids(await harness.claim(session.worker_id)) == ["s-1"]


async def test_a_worker_that_leaves_while_it_makes_one_stays_until_its_lease_runs_out(harness: QueueHarness) -> None:
    session = await recheck(harness, await unavailable(harness))
    await harness.queue.stop_worker(session.worker_id)
    (told,) = await harness.reports.list_workers(all_sessions=True)
    assert (told.worker["id"], told.worker["claimed"]) == (session.worker_id, 1)


async def test_neither_cancel_nor_retry_reaches_one_that_is_being_asked_again(harness: QueueHarness) -> None:
    session = await recheck(harness, await unavailable(harness))
    before = await harness.row("s-1")
    assert await harness.operators.cancel(ids=["s-1"], reason="why", actor="me") == []
    assert await harness.operators.retry(ids=["s-1"], states=[State.UNAVAILABLE], actor="me") == []
    assert await harness.row("s-1") == before
    await harness.settle(Attempt(session, calls=1), NONE)
    assert await harness.operators.retry(ids=["s-1"], states=[State.UNAVAILABLE], actor="me") == ["s-1"]
    row = await harness.row("s-1")
    assert (row["state"], row["recheck_at"], row["rechecks"]) == ("pending", None, 0)


async def test_readers_see_it_unavailable_with_the_time_of_the_next(harness: QueueHarness) -> None:
    await recheck(harness, await unavailable(harness))
    (row,) = await harness.fetch("SELECT state, recheck_at, rechecks, last_asked_at FROM archive_sessions")
    assert (row["state"], row["rechecks"]) == ("unavailable", 0)
    assert row["recheck_at"] is not None is not row["last_asked_at"]
    (counted,) = await harness.reports.count_sessions()
    assert (counted.state, counted.sessions, counted.rechecks) == ("unavailable", 1, 1)
    assert counted.next_recheck == row["recheck_at"]


# --- sessions that were archived, and are asked for again


async def archived_before(harness: QueueHarness) -> Session:
    """Archived with one file, brought back by a person, and claimed."""
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file(1, "old")], calls=1, listed=1), Archived())
    assert await harness.operators.retry(ids=["s-1"], states=[State.ARCHIVED], actor="me") == ["s-1"]
    (session,) = await harness.claim(session.worker_id)
    return session


@pytest.mark.parametrize("outcome", [NONE, Failed("platform_failed", {"answer": "none"})])
async def test_what_the_platform_has_forgotten_is_archived_as_before(harness: QueueHarness, outcome: Outcome) -> None:
    session = await archived_before(harness)
    assert await harness.settle(Attempt(session, calls=1), outcome) == State.ARCHIVED
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["archived_before"]) == ("archived", "kept", False)
    assert row["detail"] == {"answer": "none", "reason": outcome.reason}  # type: ignore[union-attr]
    name, data = await last_event(harness)
    assert (name, data["reason"], data["detail"]) == ("archived", "kept", row["detail"])


async def test_one_that_cannot_be_asked_for_is_archived_as_before_when_it_is_given_up(harness: QueueHarness) -> None:
    session = await archived_before(harness)
    ends = []
    for _ in range(3):
        ends.append(await harness.settle(Attempt(session, calls=1), Retry("api_unreachable")))
        await harness.make_due()
        if ends[-1] == State.PENDING:
            (session,) = await harness.claim(session.worker_id)
    assert ends == ["pending", "pending", "archived"]
    assert (await harness.row("s-1"))["detail"]["reason"] == "api_unreachable"


async def test_a_new_file_that_cannot_be_had_is_no_longer_archived(harness: QueueHarness) -> None:
    """Also not where the platform has forgotten it by the time of the next attempt."""
    session = await archived_before(harness)
    assert (
        await harness.settle(Attempt(session, calls=1, listed=2, missing={(2, "b.wav")}), Retry("media_unreachable"))
        == State.PENDING
    )
    await harness.make_due()
    (session,) = await harness.claim(session.worker_id)
    assert await harness.settle(Attempt(session, calls=1), NONE) == State.FAILED
    row = await harness.row("s-1")
    assert (row["reason"], row["detail"]["reason"]) == ("partial", "media_unavailable")
    await harness.operators.retry(ids=["s-1"], states=[State.FAILED], actor="me")
    (session,) = await harness.claim(session.worker_id)
    assert await harness.settle(Attempt(session, calls=1), NONE) == State.FAILED


async def test_too_many_files_are_news(harness: QueueHarness) -> None:
    session = await archived_before(harness)
    assert await harness.settle(Attempt(session, calls=1), Failed("too_many_files")) == State.FAILED


async def test_taken_out_again_it_is_archived_as_before(harness: QueueHarness) -> None:
    session = await archived_before(harness)
    assert await harness.operators.cancel(ids=["s-1"], reason="a wrong list", actor="me") == ["s-1"]
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["worker_id"]) == ("archived", "kept", None)
    assert row["detail"] == {"cancelled_by": "me", "reason": "a wrong list"}
    assert await last_event(harness) == ("cancelled", {"reason": "a wrong list", "state": "archived"})
    assert await harness.queue.settle([(Attempt(session), Archived())]) == [None]


async def test_a_waiting_one_can_be_taken_out_too(harness: QueueHarness) -> None:
    session = await archived_before(harness)
    await harness.settle(Attempt(session), HandedBack("worker_stopped"))
    await harness.operators.cancel(ids=["s-1"], reason="a wrong list", actor="me")
    assert (await harness.row("s-1"))["state"] == "archived"


async def test_one_that_took_workers_down_has_failed_and_may_be_archived_as_before_once_it_is_retried(
    harness: QueueHarness,
) -> None:
    session = await archived_before(harness)
    await harness.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    assert (await harness.row("s-1"))["reason"] == "partial"
    await harness.operators.retry(ids=["s-1"], states=[State.FAILED], actor="me")
    (session,) = await harness.claim(await harness.worker())
    assert await harness.settle(Attempt(session, calls=1), NONE) == State.ARCHIVED
