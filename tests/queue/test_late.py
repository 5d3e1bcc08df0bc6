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
from archiver.queue.sessions import MAX_CRASHES, Known, Queue
from archiver.session import Attempt, Session, State
from tests.queue.conftest import Bench, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NONE = Unavailable("media_unavailable", {"answer": "none"})


async def unavailable(bench: Bench, *names: str, bot: str = "bot", **columns: Any) -> int:
    """Sessions that have just become that; returns the worker that asked."""
    await bench.add(*(names or ["s-1"]), bot=bot, **columns)
    worker = await bench.worker(bot)
    for session in await bench.claim(worker, 100, bot):
        assert await bench.settle(Attempt(session, calls=1), NONE) == State.UNAVAILABLE
    return worker


async def recheck(bench: Bench, worker: int) -> Session:
    """The one recheck there is, claimed now."""
    await bench.make_rechecks_due()
    (session,) = await bench.claim(worker)
    assert session.recheck
    return session


async def age(bench: Bench, by: timedelta) -> None:
    """As if sessions had ended so much earlier."""
    await bench.fetch("UPDATE archive_queue SET finished_at = finished_at - $1::interval", by)


async def due_in(bench: Bench, one: str = "s-1") -> timedelta | None:
    """How long after it became unavailable it is asked for again."""
    found = await bench.value("SELECT recheck_at - finished_at FROM archive_queue WHERE session_id = $1", one)
    assert found is None or isinstance(found, timedelta)
    return found and timedelta(seconds=round(found.total_seconds()))


async def last_event(bench: Bench, one: str = "s-1") -> tuple[str, dict[str, Any]]:
    (shown,) = await bench.database.rows("show", one, None, None)
    return shown["events"][-1]["event"], shown["events"][-1]["data"]


async def test_it_is_asked_again_on_the_schedule_and_no_more_after_its_end(bench: Bench) -> None:
    worker = await unavailable(bench)
    since = (await bench.row("s-1"))["finished_at"]
    for number, (first, then) in enumerate([(1, 3), (3, 7), (7, None)], start=1):
        assert await due_in(bench) == first * DAY
        await age(bench, first * DAY - (await bench.queue.clock() - (await bench.row("s-1"))["finished_at"]))
        session = await recheck(bench, worker)
        assert (await bench.row("s-1"))["state"] == "unavailable"
        fresh = Unavailable("media_unavailable", {"answer": number})
        assert await bench.settle(Attempt(session, calls=1), fresh) == State.UNAVAILABLE
        row = await bench.row("s-1")
        assert (row["state"], row["reason"], row["detail"]) == ("unavailable", "media_unavailable", {"answer": number})
        assert (row["rechecks"], row["calls"], row["worker_id"]) == (number, number + 1, None)
        assert row["last_asked_at"] == session.claimed_at > row["first_asked_at"]
        assert await due_in(bench) == (then and then * DAY)
    assert since > (await bench.row("s-1"))["finished_at"], "it has counted from the same end, which the test moved"
    assert await bench.history("s-1") == ["enqueued"] + 4 * ["claimed", "unavailable"]
    assert await bench.claim(worker) == []


@pytest.mark.parametrize("rechecked", [False, True])
async def test_what_there_can_be_no_recording_of_any_more_is_not_asked_for_again(bench: Bench, rechecked: bool) -> None:
    final = Unavailable("probably_purged", {"message": "too old"}, final=True)
    if rechecked:
        session = await recheck(bench, await unavailable(bench))
    else:
        session = await bench.claim_one()
    assert await bench.settle(Attempt(session, calls=1), final) == State.UNAVAILABLE
    row = await bench.row("s-1")
    assert (row["reason"], row["detail"], row["recheck_at"]) == ("probably_purged", {"message": "too old"}, None)
    assert await bench.queue.retry(ids=["s-1"], actor="me") == ["s-1"], "a person may"


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
    bench: Bench, reason: str, facts: dict[str, str], later: timedelta, again: bool
) -> None:
    """A producer may take a day for a month, and a listing may call a dial busy that was answered in the end."""
    began = await bench.queue.clock() - 320 * DAY
    await bench.add("s-1", started_at=began)
    worker = await bench.worker()
    (session,) = await bench.claim(worker)
    await bench.settle(Attempt(session, calls=1), Unavailable(reason, {}, final=True))
    for _ in range(2):
        await bench.queue.learn("bot", [Known("s-1", "recording", began + later, None, None, facts)])
        claimed = await bench.claim(worker)
        assert [(session.recheck, session.began_at) for session in claimed] == [(True, began + later)] * again
        for session in claimed:
            await bench.settle(Attempt(session, calls=1), Unavailable(reason, {}, final=True))
        again = False


async def test_a_listing_that_knows_of_no_campaigns_takes_nothing_back(bench: Bench) -> None:
    await bench.add("s-1", started_at=(began := await bench.queue.clock()))
    await bench.queue.learn("bot", [Known("s-1", "recording", began, None, None, {"unanswered": "busy"})])
    await bench.queue.learn("bot", [Known("s-1", "recording", began - HOUR, None, "u-1", {})], tells_dials=False)
    (session,) = await bench.claim(await bench.worker())
    assert (session.began_at, session.unanswered) == (began - HOUR, "busy")


async def test_a_time_that_no_call_began_at_is_not_believed(bench: Bench) -> None:
    """Else a producer's zero would make the first "media_unavailable" the last: a call of 1970 is older than any retention."""
    await bench.add("zero", started_at=datetime(1970, 1, 1, tzinfo=UTC))
    await bench.add("swapped", started_at=datetime(2002, 10, 20, tzinfo=UTC))
    await bench.add("true", started_at=(began := await bench.queue.clock() - 2000 * DAY))
    worker = await bench.worker()
    claimed = {session.session_id: session for session in await bench.claim(worker)}
    enqueued_at = {one: (await bench.row(one))["enqueued_at"] for one in claimed}
    for _ in range(2):
        assert {one: session.began_at for one, session in claimed.items()} == {**enqueued_at, "true": began}
        for session in claimed.values():
            await bench.settle(Attempt(session, calls=1), NONE)
        await bench.make_rechecks_due()
        claimed = {session.session_id: session for session in await bench.claim(worker)}


async def test_a_claim_tells_of_its_call_what_an_answer_is_judged_by(bench: Bench) -> None:
    began = await bench.queue.clock() - 5 * DAY
    await bench.add("s-1", started_at=began)
    await bench.add("s-2")
    await bench.fetch("""UPDATE archive_queue SET call = '{"unanswered": "no-answer"}' WHERE session_id = 's-1'""")
    worker = await bench.worker()
    first, second = sorted(await bench.claim(worker), key=lambda session: session.session_id)
    assert (first.began_at, first.unanswered, first.unavailable_since) == (began, "no-answer", None)
    assert (second.began_at, second.unanswered) == (second.archive_date, None)
    for session in (first, second):
        await bench.settle(Attempt(session, calls=1), NONE)
    await bench.fetch("UPDATE archive_queue SET started_at = 'infinity' WHERE session_id = 's-2'")
    await bench.make_rechecks_due()
    first, second = sorted(await bench.claim(worker), key=lambda session: session.session_id)
    assert (first.began_at, first.unanswered) == (began, "no-answer")
    assert first.unavailable_since == (await bench.row("s-1"))["finished_at"]
    assert second.began_at == second.archive_date


async def test_an_empty_schedule_asks_never(bench: Bench) -> None:
    bench.queue = Queue(bench.database, RetrySettings(recheck_unavailable=()))
    await unavailable(bench)
    assert await due_in(bench) is None


async def test_what_passed_while_nobody_asked_is_left_out(bench: Bench) -> None:
    worker = await unavailable(bench)
    await age(bench, 5 * DAY)
    await bench.settle(Attempt(await recheck(bench, worker), calls=1), NONE)
    assert await due_in(bench) == 7 * DAY


async def test_it_is_archived_when_it_has_been_published_late(bench: Bench) -> None:
    worker = await unavailable(bench)
    before = await bench.queue.clock()
    session = await recheck(bench, worker)
    assert await bench.settle(Attempt(session, [stored_file(1, "late")], calls=1, listed=1), Archived()) == State.ARCHIVED
    row = await bench.row("s-1")
    assert (row["state"], row["reason"], row["detail"], row["recheck_at"], row["rechecks"]) == ("archived", None, {}, None, 1)
    assert row["finished_at"] > before
    assert await bench.value("SELECT store_key FROM archived_recordings") == "late"
    assert await bench.history("s-1") == ["enqueued", "claimed", "unavailable", "claimed", "archived"]
    assert await bench.queue.settle([(Attempt(session, calls=1), Archived())]) == [State.ARCHIVED], "told again: written once"
    assert (await bench.row("s-1"))["rechecks"] == 1


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
    bench: Bench, outcome: Outcome, event: str, least: timedelta, most: timedelta
) -> None:
    session = await recheck(bench, await unavailable(bench))
    before = await bench.row("s-1"), await bench.queue.clock()
    assert await bench.settle(Attempt(session, calls=1), outcome) == State.UNAVAILABLE
    row, now = await bench.row("s-1"), await bench.queue.clock()
    for name in ("state", "reason", "detail", "finished_at", "run_at", "first_asked_at"):
        assert row[name] == before[0][name]
    assert (row["rechecks"], row["last_asked_at"], row["worker_id"]) == (1, session.claimed_at, None)
    assert before[1] + least <= row["recheck_at"] <= now + most
    name, data = await last_event(bench)
    assert (name, data["reason"]) == (event, getattr(outcome, "reason", "media_in_progress"))
    assert "recheck_at" in data


async def test_a_recheck_that_was_put_back_before_its_call_is_none(bench: Bench) -> None:
    session = await recheck(bench, await unavailable(bench))
    await bench.settle(Attempt(session), HandedBack("worker_stopped"))
    row = await bench.row("s-1")
    assert (row["rechecks"], row["calls"], row["last_asked_at"]) == (0, 1, row["first_asked_at"])
    assert ids(await bench.claim(session.worker_id)) == ["s-1"]


async def test_a_recheck_that_goes_wrong_has_the_attempts_of_any_other_and_then_waits_for_the_next(bench: Bench) -> None:
    worker = await unavailable(bench)
    for attempt in range(3):
        session = await recheck(bench, worker)
        assert session.failures == attempt
        assert await bench.settle(Attempt(session, calls=1), Retry("api_unreachable")) == State.UNAVAILABLE
    assert await due_in(bench) == DAY, "the first of the schedule that is still to come"
    assert (await recheck(bench, worker)).failures == 0


async def test_a_recheck_in_progress_is_waited_for_as_long_as_any_other(bench: Bench) -> None:
    bench.queue = Queue(bench.database, RetrySettings(not_ready_delays=(HOUR, 2 * HOUR), not_ready_give_up=5 * HOUR))
    worker = await unavailable(bench)
    waits = []
    for _ in range(4):
        session = await recheck(bench, worker)
        now = await bench.queue.clock()
        await bench.settle(Attempt(session, calls=1), NotReady("media_in_progress"))
        waits.append(round(((await bench.row("s-1"))["recheck_at"] - now) / HOUR))
    assert waits == [1, 2, 2, 24]


@pytest.mark.parametrize("outcome", [NONE, Failed("conflict")])
@pytest.mark.parametrize("earlier", [True, False])
async def test_some_stored_and_one_that_cannot_be_is_partial(bench: Bench, outcome: Outcome, earlier: bool) -> None:
    worker = await unavailable(bench)
    session, file = await recheck(bench, worker), stored_file(1, "some")
    if earlier:
        assert await bench.settle(Attempt(session, [file], calls=1), Retry("api_unreachable")) == State.UNAVAILABLE
        session = await recheck(bench, worker)
        assert [known.store_key for known in session.known] == ["some"]
    assert await bench.settle(Attempt(session, [] if earlier else [file], calls=1), outcome) == State.FAILED
    row = await bench.row("s-1")
    assert (row["reason"], row["detail"]["reason"], row["recheck_at"]) == ("partial", outcome.reason, None)  # type: ignore[union-attr]


# --- who gets it, and when


async def test_it_is_not_claimed_before_its_time_and_the_claim_says_when(bench: Bench) -> None:
    worker = await unavailable(bench)
    claim = await bench.queue.claim(worker, {"bot": bench.quota()}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert DAY - timedelta(minutes=1) < claim.again_in <= DAY


async def test_what_is_held_by_one_is_not_claimed_by_another(bench: Bench) -> None:
    await recheck(bench, await unavailable(bench))
    assert await bench.claim(await bench.worker()) == []


async def test_a_recheck_draws_its_call_and_waits_for_it(bench: Bench) -> None:
    worker = await unavailable(bench, "s-1", "s-2", "s-3")
    await bench.make_rechecks_due()
    claim = await bench.queue.claim(worker, {"bot": bench.quota("bot", "1/minute")}, 10)
    assert len(claim.sessions) == 1
    claim = await bench.queue.claim(worker, {"bot": bench.quota("bot", "1/minute")}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert claim.again_in > timedelta(seconds=30)


async def test_a_paused_bot_and_a_held_kind_are_left_alone(bench: Bench) -> None:
    worker = await unavailable(bench)
    await bench.make_rechecks_due()
    quota = bench.quota()
    terms = [worker, "bot", "recording", 5, quota.key, [], [], None]
    await bench.queue.pause(["bot"], actor="me")
    assert await bench.claim(worker) == []
    assert await bench.database.rows("claim_rechecks", *terms) == [], "nor between looking and claiming"
    await bench.queue.resume(["bot"], actor="me")
    await bench.queue.hold("bot", "recording", "credentials_rejected", {})
    await bench.fetch("UPDATE archive_holds SET probe_at = now()")
    assert await bench.claim(worker) == []
    assert await bench.database.rows("claim_rechecks", *terms) == []
    await bench.queue.resume(["bot"], actor="me")
    assert ids(await bench.claim(worker)) == ["s-1"]


async def test_a_worker_whose_lease_ran_out_gets_none(bench: Bench) -> None:
    worker = await unavailable(bench)
    await bench.make_rechecks_due()
    await bench.expire(worker)
    assert await bench.claim(worker) == []


async def test_slots_go_to_rechecks_when_the_bot_has_nothing_else_to_do(bench: Bench) -> None:
    worker = await unavailable(bench, *(f"u-{n}" for n in range(10)))
    await bench.make_rechecks_due()
    quotas = {"bot": bench.quota()}
    assert (await bench.queue.claim(worker, quotas, 10, idle_rechecks=False)).sessions == []
    start = await bench.value("SELECT min(recheck_at) - interval '1 hour' FROM archive_queue")
    assert (await bench.queue.claim(worker, quotas, 10, due_by=start)).sessions == []
    assert len((await bench.queue.claim(worker, quotas, 10)).sessions) == 10


async def test_other_bots_with_work_go_first(bench: Bench) -> None:
    await unavailable(bench, *(f"u-{n}" for n in range(10)), bot="idle")
    await bench.make_rechecks_due()
    await bench.add(*(f"s-{n}" for n in range(6)))
    claimed = await bench.claim(await bench.worker("bot", "idle"), 8, "bot", "idle")
    assert Counter(session.bot for session in claimed) == {"bot": 6, "idle": 2}


@pytest.mark.parametrize("limits", [(), ("1/minute",)], ids=["slots", "budget"])
@pytest.mark.parametrize("slots", [1, 16])
async def test_beside_other_work_about_one_claim_in_eight(bench: Bench, slots: int, limits: tuple[str, ...]) -> None:
    worker = await unavailable(bench, *(f"u-{n}" for n in range(100)))
    await bench.make_rechecks_due()
    await bench.add(*(f"s-{n}" for n in range(400)))
    quotas = {"bot": bench.quota("bot", *limits)}
    got: list[Session] = []
    while len(got) < 240:
        await bench.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
        got += (await bench.queue.claim(worker, quotas, slots)).sessions
    share = sum(session.recheck for session in got) / len(got)
    if slots == 16 and not limits:
        assert share == 1 / 16, "one of a claim for many slots at once"
    else:
        assert 0.03 < share < 0.26, "a lot: one run in a hundred thousand is out of these"


async def test_no_drain_waits_for_one_unless_it_is_to_make_those_that_are_due(bench: Bench) -> None:
    worker = await unavailable(bench, "s-1", "s-2")
    await bench.fetch("UPDATE archive_queue SET recheck_at = now() - interval '1 hour' WHERE session_id = 's-1'")
    start = await bench.queue.clock()

    async def waits() -> list[tuple[int, int]]:
        backlogs = [await bench.queue.backlog(["bot"], start, night=night) for night in (False, True)]
        assert [backlog.workable for backlog in backlogs] == [0, 0]
        return [(backlog.rechecks, backlog.claimed) for backlog in backlogs]

    assert await waits() == [(0, 0), (1, 0)]
    await bench.queue.pause(["bot"], actor="me")
    assert await waits() == [(0, 0), (0, 0)]
    await bench.queue.resume(None, actor="me")
    await bench.queue.hold("bot", "recording", "credentials_rejected", {})
    assert await waits() == [(0, 0), (0, 0)]
    await bench.queue.resume(None, actor="me")
    assert (await bench.queue.backlog(["other"], start, night=True)).rechecks == 0
    (session,) = await bench.claim(worker)
    assert await waits() == [(0, 0), (0, 1)], "one that another has in hand is waited for"
    await bench.settle(Attempt(session, calls=1), Retry("api_unreachable"))
    assert await waits() == [(0, 0), (0, 0)], "what is put off is due later"


# --- leases, people, readers


async def test_a_dead_workers_recheck_is_due_as_it_was(bench: Bench) -> None:
    session = await recheck(bench, await unavailable(bench))
    before = await bench.row("s-1")
    await bench.expire(session.worker_id)
    (rescued,) = await bench.queue.rescue(actor="other")
    assert (rescued.session_id, rescued.state, rescued.crashes) == ("s-1", "unavailable", 1)
    row = await bench.row("s-1")
    changed = {name for name in row if row[name] != before[name]}
    assert changed == {"worker_id", "epoch", "crashes"}
    assert await last_event(bench) == ("rescued", {"reason": "worker_lost", "from": f"worker {session.worker_id}", "crashes": 1})
    assert [left["epoch"] for left in await bench.queue.leftovers()] == [session.epoch]
    assert await bench.queue.settle([(Attempt(session, [stored_file()], calls=1), Archived())]) == [None]
    assert (await bench.row("s-1")) == row
    (again,) = await bench.claim(await bench.worker())
    assert await bench.settle(Attempt(again, [stored_file()], calls=1), Archived()) == State.ARCHIVED


async def test_one_that_takes_workers_down_is_not_asked_again_but_stays_unavailable(bench: Bench) -> None:
    await unavailable(bench)
    for _ in range(MAX_CRASHES):
        session = await recheck(bench, await bench.worker())
        await bench.expire(session.worker_id)
        await bench.queue.rescue(actor="other")
    row = await bench.row("s-1")
    assert (row["state"], row["reason"], row["crashes"], row["recheck_at"]) == (
        "unavailable",
        "media_unavailable",
        MAX_CRASHES,
        None,
    )
    name, data = await last_event(bench)
    assert (name, data["reason"]) == ("rescued", "crashed_workers")


async def test_a_claim_whose_answer_was_lost_is_due_again(bench: Bench) -> None:
    session = await recheck(bench, await unavailable(bench))
    await bench.queue.disown(session.worker_id, [session.id])
    assert await bench.queue.taken_away([session]) == set()
    await bench.queue.disown(session.worker_id, [])
    assert await bench.queue.taken_away([session]) == {session.id}
    assert ((await bench.row("s-1"))["state"], (await bench.row("s-1"))["reason"]) == ("unavailable", "media_unavailable")
    assert await last_event(bench) == ("handed_back", {"reason": "claim_unanswered"})
    assert ids(await bench.claim(session.worker_id)) == ["s-1"]


async def test_a_worker_that_leaves_while_it_makes_one_stays_until_its_lease_runs_out(bench: Bench) -> None:
    session = await recheck(bench, await unavailable(bench))
    await bench.queue.stop_worker(session.worker_id)
    (told,) = await bench.database.rows("workers", True)
    assert (told["worker"]["id"], told["worker"]["claimed"]) == (session.worker_id, 1)


async def test_neither_cancel_nor_retry_reaches_one_that_is_being_asked_again(bench: Bench) -> None:
    session = await recheck(bench, await unavailable(bench))
    before = await bench.row("s-1")
    assert await bench.queue.cancel(ids=["s-1"], reason="why", actor="me") == []
    assert await bench.queue.retry(ids=["s-1"], states=[State.UNAVAILABLE], actor="me") == []
    assert await bench.row("s-1") == before
    await bench.settle(Attempt(session, calls=1), NONE)
    assert await bench.queue.retry(ids=["s-1"], states=[State.UNAVAILABLE], actor="me") == ["s-1"]
    row = await bench.row("s-1")
    assert (row["state"], row["recheck_at"], row["rechecks"]) == ("pending", None, 0)


async def test_readers_see_it_unavailable_with_the_time_of_the_next(bench: Bench) -> None:
    await recheck(bench, await unavailable(bench))
    (row,) = await bench.fetch("SELECT state, recheck_at, rechecks, last_asked_at FROM archive_sessions")
    assert (row["state"], row["rechecks"]) == ("unavailable", 0)
    assert row["recheck_at"] is not None is not row["last_asked_at"]
    (counted,) = await bench.database.rows("status")
    assert (counted["state"], counted["sessions"], counted["rechecks"]) == ("unavailable", 1, 1)
    assert counted["next_recheck"] == row["recheck_at"]


# --- sessions that were archived, and are asked for again


async def archived_before(bench: Bench) -> Session:
    """Archived with one file, brought back by a person, and claimed."""
    session = await bench.claim_one()
    await bench.settle(Attempt(session, [stored_file(1, "old")], calls=1, listed=1), Archived())
    assert await bench.queue.retry(ids=["s-1"], states=[State.ARCHIVED], actor="me") == ["s-1"]
    (session,) = await bench.claim(session.worker_id)
    return session


@pytest.mark.parametrize("outcome", [NONE, Failed("platform_failed", {"answer": "none"})])
async def test_what_the_platform_has_forgotten_is_archived_as_before(bench: Bench, outcome: Outcome) -> None:
    session = await archived_before(bench)
    assert await bench.settle(Attempt(session, calls=1), outcome) == State.ARCHIVED
    row = await bench.row("s-1")
    assert (row["state"], row["reason"], row["archived_before"]) == ("archived", "kept", False)
    assert row["detail"] == {"answer": "none", "reason": outcome.reason}  # type: ignore[union-attr]
    name, data = await last_event(bench)
    assert (name, data["reason"], data["detail"]) == ("archived", "kept", row["detail"])


async def test_one_that_cannot_be_asked_for_is_archived_as_before_when_it_is_given_up(bench: Bench) -> None:
    session = await archived_before(bench)
    ends = []
    for _ in range(3):
        ends.append(await bench.settle(Attempt(session, calls=1), Retry("api_unreachable")))
        await bench.make_due()
        if ends[-1] == State.PENDING:
            (session,) = await bench.claim(session.worker_id)
    assert ends == ["pending", "pending", "archived"]
    assert (await bench.row("s-1"))["detail"]["reason"] == "api_unreachable"


async def test_a_new_file_that_cannot_be_had_is_no_longer_archived(bench: Bench) -> None:
    """Also not where the platform has forgotten it by the time of the next attempt."""
    session = await archived_before(bench)
    assert (
        await bench.settle(Attempt(session, calls=1, listed=2, missing={(2, "b.wav")}), Retry("media_unreachable"))
        == State.PENDING
    )
    await bench.make_due()
    (session,) = await bench.claim(session.worker_id)
    assert await bench.settle(Attempt(session, calls=1), NONE) == State.FAILED
    row = await bench.row("s-1")
    assert (row["reason"], row["detail"]["reason"]) == ("partial", "media_unavailable")
    await bench.queue.retry(ids=["s-1"], states=[State.FAILED], actor="me")
    (session,) = await bench.claim(session.worker_id)
    assert await bench.settle(Attempt(session, calls=1), NONE) == State.FAILED


async def test_too_many_files_are_news(bench: Bench) -> None:
    session = await archived_before(bench)
    assert await bench.settle(Attempt(session, calls=1), Failed("too_many_files")) == State.FAILED


async def test_taken_out_again_it_is_archived_as_before(bench: Bench) -> None:
    session = await archived_before(bench)
    assert await bench.queue.cancel(ids=["s-1"], reason="a wrong list", actor="me") == ["s-1"]
    row = await bench.row("s-1")
    assert (row["state"], row["reason"], row["worker_id"]) == ("archived", "kept", None)
    assert row["detail"] == {"cancelled_by": "me", "reason": "a wrong list"}
    assert await last_event(bench) == ("cancelled", {"reason": "a wrong list", "state": "archived"})
    assert await bench.queue.settle([(Attempt(session), Archived())]) == [None]


async def test_a_waiting_one_can_be_taken_out_too(bench: Bench) -> None:
    session = await archived_before(bench)
    await bench.settle(Attempt(session), HandedBack("worker_stopped"))
    await bench.queue.cancel(ids=["s-1"], reason="a wrong list", actor="me")
    assert (await bench.row("s-1"))["state"] == "archived"


async def test_one_that_took_workers_down_has_failed_and_may_be_archived_as_before_once_it_is_retried(bench: Bench) -> None:
    session = await archived_before(bench)
    await bench.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    await bench.expire(session.worker_id)
    await bench.queue.rescue(actor="other")
    assert (await bench.row("s-1"))["reason"] == "partial"
    await bench.queue.retry(ids=["s-1"], states=[State.FAILED], actor="me")
    (session,) = await bench.claim(await bench.worker())
    assert await bench.settle(Attempt(session, calls=1), NONE) == State.ARCHIVED
