"""Leases: a live worker keeps its sessions, a dead one loses each of them to exactly one other."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from archiver.errors import LeaseLost
from archiver.outcome import Archived
from archiver.queue.sessions import MAX_CRASHES
from archiver.session import Attempt
from tests.queue.conftest import MINUTE, Bench, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each


async def test_a_worker_gets_a_new_id_at_every_start(bench: Bench) -> None:
    assert len({await bench.worker() for _ in range(3)}) == 3


async def test_a_lease_that_holds_is_prolonged(bench: Bench) -> None:
    worker = await bench.worker(lease=timedelta(minutes=1))
    assert await bench.queue.renew(worker, timedelta(hours=1))
    assert await bench.value("SELECT expires_at > now() + interval '59 minutes' FROM archive_workers")
    await bench.claim_one()
    assert await bench.queue.rescue(actor="other") == []


async def test_a_lease_that_ran_out_is_never_prolonged(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.expire(worker)
    assert not await bench.queue.renew(worker, MINUTE)
    assert not await bench.queue.renew(worker + 1, MINUTE)


async def test_what_a_dead_worker_held_goes_back_and_its_files_are_noted_for_sweeping(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.expire(session.worker_id)
    (rescued,) = await bench.queue.rescue(actor="worker 9")
    assert (rescued.session_id, rescued.state, rescued.crashes, rescued.lost_worker) == ("s-1", "pending", 1, session.worker_id)
    row = await bench.row("s-1")
    assert (row["reason"], row["failures"], row["epoch"], row["worker_id"]) == ("worker_lost", 0, session.epoch + 1, None)
    (left,) = await bench.queue.leftovers()
    assert (left["queue_id"], left["worker_id"], left["epoch"]) == (session.id, session.worker_id, session.epoch)
    assert left["archive_date"] == session.archive_date
    await bench.queue.leftover_gone(left["queue_id"], left["epoch"])
    assert await bench.queue.leftovers() == []
    assert await bench.history("s-1") == ["enqueued", "claimed", "rescued"]
    assert await bench.value("SELECT count(*) FROM archive_workers") == 0


async def test_many_rescuers_at_once_take_each_session_once(bench: Bench) -> None:
    await bench.add(*(f"s-{n}" for n in range(60)))
    for _ in range(3):
        worker = await bench.worker()
        assert len(await bench.claim(worker, 20)) == 20
        await bench.expire(worker)
    found = await asyncio.gather(*(bench.queue.rescue(actor=f"worker {n}") for n in range(5)))
    assert len({one.session_id for share in found for one in share}) == sum(map(len, found)) == 60
    assert await bench.value("SELECT array_agg(DISTINCT crashes) FROM archive_queue") == [1]


async def test_a_session_that_takes_workers_down_is_given_up(bench: Bench) -> None:
    await bench.add("s-1")
    for crash in range(1, MAX_CRASHES + 1):
        await bench.make_due()
        worker = await bench.worker()
        (session,) = await bench.claim(worker)
        assert session.crashes == crash - 1
        await bench.expire(worker)
        (rescued,) = await bench.queue.rescue(actor="other")
        assert rescued.state == ("failed" if crash == MAX_CRASHES else "pending")
    row = await bench.row("s-1")
    assert (row["reason"], row["crashes"], row["failures"]) == ("crashed_workers", MAX_CRASHES, 0)
    assert row["finished_at"] is not None
    assert (await bench.history("s-1"))[-1] == "failed"


async def test_a_session_given_up_with_files_stored_is_partial(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.fetch("UPDATE archive_queue SET crashes = $1", MAX_CRASHES - 1)
    await bench.fetch(
        """INSERT INTO archived_recordings
            (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
        VALUES ('bot', 's-1', 'recording', 1, 'a', 'a', 1, repeat('0', 64), 'a', $1)""",
        session.id,
    )
    await bench.expire(session.worker_id)
    await bench.queue.rescue(actor="other")
    row = await bench.row("s-1")
    assert (row["state"], row["reason"], row["detail"]["reason"]) == ("failed", "partial", "crashed_workers")


async def test_a_worker_that_comes_back_from_the_dead_can_write_nothing(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.expire(session.worker_id)
    await bench.queue.rescue(actor="other")
    (taken,) = await bench.claim(await bench.worker())
    with pytest.raises(LeaseLost):
        await bench.settle(Attempt(session, [stored_file(1, "zombie")]), Archived())
    await bench.settle(Attempt(taken, [stored_file(1, "living")]), Archived())
    assert await bench.value("SELECT array_agg(store_key) FROM archived_recordings") == ["living"]


async def test_a_worker_that_left_in_order_is_gone_and_nothing_of_it_is_rescued(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.settle(Attempt(session), Archived())
    await bench.queue.stop_worker(session.worker_id)
    assert await bench.value("SELECT count(*) FROM archive_workers") == 0
    assert await bench.queue.rescue(actor="other") == []


async def test_a_worker_that_leaves_while_it_holds_something_stays_until_its_lease_runs_out(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.queue.stop_worker(session.worker_id)
    assert await bench.queue.rescue(actor="other") == []
    await bench.expire(session.worker_id)
    assert [one.session_id for one in await bench.queue.rescue(actor="other")] == ["s-1"]


async def test_a_claim_that_came_in_while_its_worker_was_taken_off_the_list_is_not_lost(bench: Bench) -> None:
    await bench.add("s-1")
    worker = await bench.worker()
    quota = bench.quota("bot", "60000/minute")
    await quota.draw()
    async with bench.locked("SELECT FROM archive_budgets FOR UPDATE"):
        claiming = asyncio.create_task(bench.queue.claim(worker, {"bot": quota}, 5))
        await bench.blocked()
        await bench.expire(worker)
        assert await bench.queue.rescue(actor="other") == []
        assert await bench.value("SELECT count(*) FROM archive_workers") == 0
    assert ids((await claiming).sessions) == ["s-1"]
    assert [one.session_id for one in await bench.queue.rescue(actor="other")] == ["s-1"]
    assert await bench.states() == {"pending": 1}


async def test_the_temporary_file_of_a_cancelled_session_is_swept_once_its_worker_is_gone(bench: Bench) -> None:
    session = await bench.claim_one()
    await bench.add("waiting")
    await bench.queue.cancel(ids=None, bot=None, kind=None, reason="why", actor="me")
    assert await bench.queue.leftovers() == [], "the worker lives: it removes its own"
    await bench.expire(session.worker_id)
    assert [left["epoch"] for left in await bench.queue.leftovers()] == [session.epoch]


async def test_a_health_check_sees_the_workers_of_its_host(bench: Bench) -> None:
    alive, dead = await bench.worker(), await bench.worker()
    await bench.expire(dead)
    assert {row["id"]: row["alive"] for row in await bench.database.rows("healthcheck", "here")} == {alive: True, dead: False}
    assert await bench.database.rows("healthcheck", "elsewhere") == []
