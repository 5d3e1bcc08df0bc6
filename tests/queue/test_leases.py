"""Leases: a live worker keeps its sessions, a dead one loses each of them to exactly one other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from archiver.errors import LeaseLost
from archiver.outcome import Archived, Failed
from archiver.postgres.statements import Statement
from archiver.queue.sessions import MAX_CRASHES, MAX_STALLS
from archiver.queue.sql import sql
from archiver.session import Attempt, Session, State
from tests.queue.conftest import MINUTE, QueueHarness, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each


async def test_a_worker_gets_a_new_id_at_every_start(harness: QueueHarness) -> None:
    assert len({await harness.worker() for _ in range(3)}) == 3


async def test_a_lease_that_holds_is_prolonged(harness: QueueHarness) -> None:
    worker = await harness.worker(lease=timedelta(minutes=1))
    assert await harness.queue.renew(worker, timedelta(hours=1))
    assert await harness.value("SELECT expires_at > now() + interval '59 minutes' FROM archive_workers")
    await harness.claim_one()
    assert await harness.queue.rescue(actor="other") == []


async def test_a_lease_that_ran_out_is_never_prolonged(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await harness.expire(worker)
    assert not await harness.queue.renew(worker, MINUTE)
    assert not await harness.queue.renew(worker + 1, MINUTE)


async def test_what_a_dead_worker_held_goes_back_and_its_files_are_noted_for_sweeping(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    (rescued,) = await harness.queue.rescue(actor="worker 9")
    assert (rescued.session_id, rescued.state, rescued.crashes, rescued.lost_worker) == ("s-1", "pending", 1, session.worker_id)
    row = await harness.row("s-1")
    assert (row["reason"], row["failures"], row["epoch"], row["worker_id"]) == ("worker_lost", 0, session.epoch + 1, None)
    (left,) = await harness.queue.list_leftovers()
    assert (left.queue_id, left.worker_id, left.epoch) == (session.id, session.worker_id, session.epoch)
    assert left.archive_date == session.archive_date
    await harness.queue.delete_leftover(left.queue_id, left.epoch)
    assert await harness.queue.list_leftovers() == []
    assert await harness.history("s-1") == ["enqueued", "claimed", "rescued"]
    assert await harness.value("SELECT count(*) FROM archive_workers") == 0


async def test_many_rescuers_at_once_take_each_session_once(harness: QueueHarness) -> None:
    await harness.add(*(f"s-{n}" for n in range(60)))
    for _ in range(3):
        worker = await harness.worker()
        assert len(await harness.claim(worker, 20)) == 20
        await harness.expire(worker)
    found = await asyncio.gather(*(harness.queue.rescue(actor=f"worker {n}") for n in range(5)))
    assert len({one.session_id for share in found for one in share}) == sum(map(len, found)) == 60
    assert await harness.value("SELECT array_agg(DISTINCT crashes) FROM archive_queue") == [1]


async def test_a_session_that_takes_workers_down_is_given_up(harness: QueueHarness) -> None:
    await harness.add("s-1")
    for crash in range(1, MAX_CRASHES + 1):
        await harness.make_due()
        worker = await harness.worker()
        (session,) = await harness.claim(worker)
        assert session.crashes == crash - 1
        await harness.expire(worker)
        (rescued,) = await harness.queue.rescue(actor="other")
        assert rescued.state == ("failed" if crash == MAX_CRASHES else "pending")
    row = await harness.row("s-1")
    assert (row["reason"], row["crashes"], row["failures"]) == ("crashed_workers", MAX_CRASHES, 0)
    assert row["finished_at"] is not None
    assert (await harness.history("s-1"))[-1] == "failed"


async def record_file(harness: QueueHarness, queue_id: int) -> None:
    await harness.fetch(
        """INSERT INTO archived_recordings
            (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
        VALUES ('bot', 's-1', 'recording', 1, 'a', 'a', 1, repeat('0', 64), 'a', $1)""",
        queue_id,
    )


async def rescued_and_failed(harness: QueueHarness) -> Session:
    """A claim that was lost, and whose session another worker then ended."""
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    await harness.make_due()
    (again,) = await harness.claim(await harness.worker())
    await harness.settle(Attempt(again), Failed("platform_failed"))
    return session


async def take_back(harness: QueueHarness, former: int, *claims: Session) -> tuple[int, int]:
    return await harness.queue.take_back(await harness.worker(), former=former, claims=claims)


async def test_a_worker_that_lost_its_lease_and_lives_puts_back_what_it_held(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    assert await take_back(harness, session.worker_id, session) == (1, 0)
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["crashes"], row["epoch"]) == ("pending", "lease_lost", 0, session.epoch + 1)
    assert await harness.history("s-1") == ["enqueued", "claimed", "handed_back"]
    assert [left.epoch for left in await harness.queue.list_leftovers()] == [session.epoch]
    assert await harness.queue.rescue(actor="other") == []
    assert await take_back(harness, session.worker_id, session) == (0, 0), "said twice it is done once"


async def test_a_crash_that_a_rescuer_counted_is_withdrawn_and_once(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.fetch("UPDATE archive_queue SET crashes = 2")
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    await harness.make_due()
    (again,) = await harness.claim(await harness.worker())
    assert await take_back(harness, session.worker_id, session) == (0, 1)
    row = await harness.row("s-1")
    assert (row["state"], row["crashes"], row["epoch"], row["worker_id"]) == ("claimed", 2, again.epoch, again.worker_id)
    assert await take_back(harness, session.worker_id, session) == (0, 0)
    assert await harness.settle(Attempt(again, [stored_file()]), Archived())


async def test_two_calls_at_once_withdraw_one_crash(harness: QueueHarness) -> None:
    """The first one's client gave up waiting; the server goes on with it while the second begins."""
    session = await harness.claim_one()
    await harness.fetch("UPDATE archive_queue SET crashes = 2")
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    async with harness.locked("SELECT 1 FROM archive_queue FOR UPDATE"):
        calls = [asyncio.create_task(take_back(harness, session.worker_id, session)) for _ in range(2)]
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        async with asyncio.timeout(20):
            while await harness.value(waiting) < 2:  # noqa: ASYNC110  # the database tells nobody who waits
                await asyncio.sleep(0.01)
    assert sorted([await call for call in calls]) == [(0, 0), (0, 1)]
    assert (await harness.row("s-1"))["crashes"] == 2


async def test_what_a_person_has_forgotten_is_not_withdrawn_from_a_later_crash(harness: QueueHarness) -> None:
    session = await rescued_and_failed(harness)
    assert await harness.operators.retry(ids=["s-1"], bot=None, kind=None, states=[State.FAILED], actor="me") == ["s-1"]
    (third,) = await harness.claim(await harness.worker())
    await harness.expire(third.worker_id)
    await harness.queue.rescue(actor="other")
    assert await take_back(harness, session.worker_id, session) == (0, 0)
    assert (await harness.row("s-1"))["crashes"] == 1


async def test_a_session_over_which_loops_stall_again_and_again_counts_as_crashing(harness: QueueHarness) -> None:
    await harness.add("s-1")
    for stall in range(MAX_STALLS + 2):
        await harness.make_due()
        worker = await harness.worker()
        (session,) = await harness.claim(worker)
        if stall % 2:
            await harness.expire(worker)
            await harness.queue.rescue(actor="other")
        done = await harness.queue.take_back(await harness.worker(), former=worker, claims=[session], stalled=True)
        assert sum(done) == (1 if stall < MAX_STALLS else 0)
        if not any(done):
            await harness.expire(worker)
            await harness.queue.rescue(actor="other")
    assert (await harness.row("s-1"))["crashes"] == 2
    assert await harness.value("SELECT count(*) FROM archive_history WHERE data ->> 'reason' = 'lease_lost'") == MAX_STALLS


async def test_stalls_alone_are_counted_as_such(harness: QueueHarness) -> None:
    await harness.add("s-1")
    for stalled in [*[False] * (MAX_STALLS + 1), True]:
        await harness.make_due()
        worker = await harness.worker()
        (session,) = await harness.claim(worker)
        claims = [session]
        assert await harness.queue.take_back(await harness.worker(), former=worker, claims=claims, stalled=stalled) == (1, 0)


async def test_one_that_stops_while_it_takes_back_holds_up_nobody(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    async with harness.database.transaction() as run:
        assert await run(sql("worker/lock_claims"), former=session.worker_id, ids=[session.id])
        bounds = await run(Statement.parse("bounds", "SELECT current_setting('idle_in_transaction_session_timeout') AS idle, "
                                                     "current_setting('lock_timeout') AS lock"))  # fmt: skip
    assert [tuple(row) for row in bounds] == [("5s", "5s")]
    assert await harness.value("SELECT current_setting('lock_timeout')") == "0"


async def test_a_session_given_up_for_a_crash_too_many_is_pending_again(harness: QueueHarness) -> None:
    """The last one was real, and one before it was not."""
    await harness.add("s-1")
    lost: list[Session] = []
    for _ in range(MAX_CRASHES):
        await harness.make_due()
        lost += await harness.claim(await harness.worker())
        await harness.expire(lost[-1].worker_id)
        await harness.queue.rescue(actor="other")
    assert (await harness.row("s-1"))["state"] == "failed"
    assert await take_back(harness, lost[0].worker_id, lost[0]) == (0, 1)
    row = await harness.row("s-1")
    assert (row["state"], row["crashes"]) == ("pending", MAX_CRASHES - 1)


async def test_a_database_that_is_away_may_be_so_any_number_of_times(harness: QueueHarness) -> None:
    await harness.add("s-1")
    for _ in range(2 * (MAX_STALLS + MAX_CRASHES)):
        await harness.make_due()
        worker = await harness.worker()
        (session,) = await harness.claim(worker)
        assert await take_back(harness, worker, session) == (1, 0)
        assert await harness.value("SELECT count(*) FROM archive_workers WHERE id = $1", worker) == 0, "it is on no list any more"
    assert (await harness.row("s-1"))["crashes"] == 0


async def test_only_crashes_of_its_own_claim_are_withdrawn(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    stranger = await harness.worker()
    assert await take_back(harness, stranger, session) == (0, 0)
    assert (await harness.row("s-1"))["crashes"] == 1


@pytest.mark.parametrize("stored", [False, True])
async def test_a_session_given_up_for_workers_that_live_is_pending_again(harness: QueueHarness, stored: bool) -> None:
    session = await harness.claim_one()
    await harness.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    if stored:
        await record_file(harness, session.id)
    await harness.expire(session.worker_id)
    (rescued,) = await harness.queue.rescue(actor="other")
    assert rescued.state == "failed"
    assert await take_back(harness, session.worker_id, session) == (0, 1)
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["crashes"], row["finished_at"]) == ("pending", "lease_lost", MAX_CRASHES - 1, None)
    assert await harness.history("s-1") == ["enqueued", "claimed", "failed", "crash_withdrawn"]
    assert await harness.claim(await harness.worker())


async def test_a_session_that_failed_for_itself_stays_failed(harness: QueueHarness) -> None:
    session = await rescued_and_failed(harness)
    assert await take_back(harness, session.worker_id, session) == (0, 1)
    assert (await harness.row("s-1"))["state"] == "failed"


async def test_a_rescuer_that_was_away_itself_rescues_nobody(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    away, here = await harness.worker(), await harness.worker()
    await harness.expire(away)
    assert await harness.queue.rescue(actor="away", worker_id=away) == []
    assert await harness.queue.rescue(actor="gone", worker_id=10**9) == []
    assert len(await harness.queue.rescue(actor="here", worker_id=here)) == 1


async def test_a_session_given_up_with_files_stored_is_partial(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    await record_file(harness, session.id)
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    row = await harness.row("s-1")
    assert (row["state"], row["reason"], row["detail"]["reason"]) == ("failed", "partial", "crashed_workers")


async def test_a_worker_that_comes_back_from_the_dead_can_write_nothing(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.expire(session.worker_id)
    await harness.queue.rescue(actor="other")
    (taken,) = await harness.claim(await harness.worker())
    with pytest.raises(LeaseLost):
        await harness.settle(Attempt(session, [stored_file(1, "zombie")]), Archived())
    await harness.settle(Attempt(taken, [stored_file(1, "living")]), Archived())
    assert await harness.value("SELECT array_agg(store_key) FROM archived_recordings") == ["living"]


async def test_a_worker_that_left_in_order_is_gone_and_nothing_of_it_is_rescued(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session), Archived())
    await harness.queue.stop_worker(session.worker_id)
    assert await harness.value("SELECT count(*) FROM archive_workers") == 0
    assert await harness.queue.rescue(actor="other") == []


async def test_a_worker_that_leaves_while_it_holds_something_stays_until_its_lease_runs_out(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.queue.stop_worker(session.worker_id)
    assert await harness.queue.rescue(actor="other") == []
    await harness.expire(session.worker_id)
    assert [one.session_id for one in await harness.queue.rescue(actor="other")] == ["s-1"]


async def test_a_claim_that_came_in_while_its_worker_was_taken_off_the_list_is_not_lost(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    quota = harness.quota("bot", "60000/minute")
    await quota.draw()
    async with harness.locked("SELECT FROM archive_budgets FOR UPDATE"):
        claiming = asyncio.create_task(harness.queue.claim(worker, {"bot": quota}, 5))
        await harness.blocked()
        await harness.expire(worker)
        assert await harness.queue.rescue(actor="other") == []
        assert await harness.value("SELECT count(*) FROM archive_workers") == 0
    assert ids((await claiming).sessions) == ["s-1"]
    assert [one.session_id for one in await harness.queue.rescue(actor="other")] == ["s-1"]
    assert await harness.states() == {"pending": 1}


async def test_the_temporary_file_of_a_cancelled_session_is_swept_once_its_worker_is_gone(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.add("waiting")
    await harness.operators.cancel(ids=None, bot=None, kind=None, reason="why", actor="me")
    assert await harness.queue.list_leftovers() == [], "the worker lives: it removes its own"
    await harness.expire(session.worker_id)
    assert [left.epoch for left in await harness.queue.list_leftovers()] == [session.epoch]


async def test_a_health_check_sees_the_workers_of_its_host(harness: QueueHarness) -> None:
    alive, dead = await harness.worker(), await harness.worker()
    await harness.expire(dead)
    here = await harness.reports.list_workers_of_host("here")
    assert {worker.id: worker.alive for worker in here} == {alive: True, dead: False}
    assert await harness.reports.list_workers_of_host("elsewhere") == []
