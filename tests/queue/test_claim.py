"""Claiming: who gets what, in which order, and never twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import DatabaseUnreachable, LeaseLost
from archiver.outcome import Archived, HandedBack, Retry
from archiver.queue.sessions import PROBE_EVERY
from archiver.queue.sql import sql
from archiver.session import Attempt, Session
from tests.queue.conftest import QueueHarness, ids

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each


async def test_a_claim_brings_no_more_than_its_slots(harness: QueueHarness) -> None:
    await harness.add(*(f"s-{n}" for n in range(10)))
    worker = await harness.worker()
    assert [len(await harness.claim(worker, slots)) for slots in (3, 0, 4, 100, 100)] == [3, 0, 4, 3, 0]
    assert await harness.states() == {"claimed": 10}


async def test_within_a_priority_by_run_at(harness: QueueHarness) -> None:
    await harness.add("l-1", priority="low")
    await harness.add("n-1", "n-2", "n-3")
    await harness.add("h-1", "h-2", priority="high")
    for age, one in enumerate(["n-2", "h-1", "l-1", "n-1", "h-2", "n-3"]):
        await harness.fetch(
            "UPDATE archive_queue SET run_at = now() - make_interval(hours => $2) WHERE session_id = $1", one, 10 - age
        )
    worker = await harness.worker()
    claimed = ids(await harness.claim(worker, 2)) + ids(await harness.claim(worker))
    assert [one for one in claimed if one[0] == "h"] == ["h-1", "h-2"]
    assert [one for one in claimed if one[0] == "n"] == ["n-2", "n-1", "n-3"]
    assert len(claimed) == 6


DAY = timedelta(days=1)
KEPT = {"bot": 90 * DAY}


async def of_age(harness: QueueHarness, ages: dict[str, int], **columns: Any) -> None:
    """Sessions whose calls began so many days ago."""
    now = await harness.queue.clock()
    for one, age in ages.items():
        await harness.add(one, started_at=now - age * DAY, **columns)


async def by_age(harness: QueueHarness, worker: int, slots: int = 100) -> list[str]:
    """What is claimed of a bot whose recordings are kept for 90 days."""
    return ids((await harness.queue.claim(worker, {"bot": harness.quota()}, slots, retentions=KEPT)).sessions)


async def test_what_the_platform_deletes_soonest_goes_first_and_what_it_probably_has_goes_last(
    harness: QueueHarness,
) -> None:
    worker = await harness.worker()
    await of_age(harness, {"new": 1, "gone": 91, "soonest": 89, "soon": 60, "long-gone": 400})
    assert await by_age(harness, worker, 2) == ["soonest", "soon"]
    assert await by_age(harness, worker) == ["new", "long-gone", "gone"]


async def test_where_nobody_knows_what_the_platform_deletes_it_goes_by_run_at(harness: QueueHarness) -> None:
    await of_age(harness, {"new": 1, "old": 89})
    assert ids(await harness.claim(await harness.worker(), 1)) == ["new"]


async def test_a_retried_session_keeps_its_place_and_one_that_sleeps_is_passed_over(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await of_age(harness, {"new": 1, "old": 80, "oldest": 89})
    (session,) = (await harness.queue.claim(worker, {"bot": harness.quota()}, 1, retentions=KEPT)).sessions
    assert session.session_id == "oldest"
    await harness.settle(Attempt(session, calls=1), Retry("http_500"))
    await harness.fetch("UPDATE archive_queue SET run_at = now() + interval '1 hour' WHERE session_id = 'oldest'")
    assert await by_age(harness, worker, 1) == ["old"]
    await harness.make_due()
    assert await by_age(harness, worker) == ["oldest", "new"]


async def test_what_is_nearest_to_its_deletion_goes_first_within_its_priority_alone(harness: QueueHarness) -> None:
    await of_age(harness, {f"l-{n}": 89 - n for n in range(8)}, priority="low")
    await of_age(harness, {f"h-{n}": n for n in range(12)}, priority="high")
    got = await by_age(harness, await harness.worker(), 16)
    assert [one for one in got if one[0] == "l"] == ["l-0", "l-1", "l-2", "l-3"]
    assert [one for one in got if one[0] == "h"] == [f"h-{n}" for n in range(11, -1, -1)]


@pytest.mark.parametrize("batch", [1, 3, 8, 64])
async def test_of_two_priorities_that_wait_the_higher_gets_three_turns_of_four(harness: QueueHarness, batch: int) -> None:
    await harness.add(*(f"h-{n}" for n in range(70)), priority="high")
    await harness.add(*(f"l-{n}" for n in range(70)), priority="low")
    worker = await harness.worker()
    got: list[str] = []
    while len(got) < 64:
        got += ids(await harness.claim(worker, batch))
    lows = sum(one.startswith("l") for one in got[:64])
    if batch % 4 == 0:
        assert lows == 16
    else:
        assert 3 <= lows <= 33, "each batch begins at a turn at random: one in a hundred thousand is out of these"


async def test_of_three_priorities_that_wait_the_two_lower_share_a_turn_of_four(harness: QueueHarness) -> None:
    for priority in ("high", "normal", "low"):
        await harness.add(*(f"{priority}-{n}" for n in range(64)), priority=priority)
    claimed = Counter(one.partition("-")[0] for one in ids(await harness.claim(await harness.worker(), 64)))
    assert claimed == {"high": 48, "normal": 12, "low": 4}


async def test_a_budget_of_one_call_at_a_time_goes_by_turns_too(harness: QueueHarness) -> None:
    await harness.add(*(f"h-{n}" for n in range(70)), priority="high")
    await harness.add(*(f"l-{n}" for n in range(70)), priority="low")
    worker = await harness.worker()
    got: list[str] = []
    for _ in range(64):
        await harness.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
        got += ids((await harness.queue.claim(worker, {"bot": harness.quota("bot", "1/minute")}, 10)).sessions)
    assert len(got) == 64
    assert 3 <= sum(one.startswith("l") for one in got) <= 33


async def test_two_workers_in_step_starve_no_priority(harness: QueueHarness) -> None:
    await harness.add(*(f"h-{n}" for n in range(100)), priority="high")
    await harness.add(*(f"l-{n}" for n in range(100)), priority="low")
    workers = [await harness.worker() for _ in range(2)]
    got: list[str] = []
    for _ in range(40):
        for sessions in await asyncio.gather(*(harness.claim(worker, 1) for worker in workers)):
            got += ids(sessions)
    assert 4 <= sum(one.startswith("l") for one in got) <= 40


async def test_slots_that_a_priority_cannot_fill_go_to_the_others(harness: QueueHarness) -> None:
    await harness.add("h-1", priority="high")
    await harness.add(*(f"n-{n}" for n in range(3)))
    await harness.add(*(f"l-{n}" for n in range(20)), priority="low")
    assert len(await harness.claim(await harness.worker(), 16)) == 16


async def test_a_short_budget_goes_to_the_oldest_not_to_the_lowest_row(harness: QueueHarness) -> None:
    await harness.add("second", "first")
    await harness.fetch("UPDATE archive_queue SET run_at = now() - interval '1 hour' WHERE session_id = 'first'")
    claim = await harness.queue.claim(await harness.worker(), {"bot": harness.quota("bot", "1/minute")}, 10)
    assert ids(claim.sessions) == ["first"]


async def test_four_claimers_at_once_share_without_loss_or_double(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's-' || n FROM generate_series(1, 500) n")

    async def claimer() -> list[Session]:
        worker = await harness.worker()
        mine: list[Session] = []
        while (await harness.states()).get("pending"):
            mine += await harness.claim(worker, 7)
        return mine

    shares = await asyncio.gather(*(claimer() for _ in range(4)))
    claimed = Counter(session.session_id for share in shares for session in share)
    assert len(claimed) == 500
    assert set(claimed.values()) == {1}
    assert all(shares), "each got some"
    for share in shares:
        for session in share:
            await harness.settle(Attempt(session), Archived())


async def test_nothing_is_claimed_before_its_time_and_the_claim_says_when(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.fetch("UPDATE archive_queue SET run_at = now() + interval '1 hour'")
    claim = await harness.queue.claim(await harness.worker(), {"bot": harness.quota()}, 10)
    assert claim.sessions == []
    assert claim.again_in is not None
    assert timedelta(minutes=59) < claim.again_in <= timedelta(hours=1)
    await harness.make_due()
    assert ids(await harness.claim(await harness.worker())) == ["s-1"]


async def test_an_empty_queue_knows_of_nothing_to_come(harness: QueueHarness) -> None:
    claim = await harness.queue.claim(await harness.worker(), {"bot": harness.quota()}, 10)
    assert (claim.sessions, claim.again_in) == ([], None)


async def test_a_bot_that_the_worker_does_not_serve_is_left_alone(harness: QueueHarness) -> None:
    await harness.add("s-1", bot="other")
    await harness.queue.record_bots(["other"], complete=False)
    assert await harness.claim(await harness.worker()) == []
    assert (await harness.row("s-1"))["epoch"] == 0


async def test_a_paused_bot_is_left_alone_until_it_is_resumed(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.add("s-2", bot="other")
    worker = await harness.worker("bot", "other")
    assert await harness.operators.pause(["bot"], actor="me") == ["bot"]
    assert ids(await harness.claim(worker, 10, "bot", "other")) == ["s-2"]
    await harness.operators.resume(["bot"], actor="me")
    assert ids(await harness.claim(worker, 10, "bot", "other")) == ["s-1"]


async def test_a_pause_between_looking_and_claiming_still_counts(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    await harness.operators.pause(None, actor="me")
    quota = harness.quota()
    rows = await harness.database.rows(
        sql("claim/sessions"),
        worker_id=worker,
        bot="bot",
        kind="recording",
        slots=5,
        budget=quota.key,
        windows=[],
        limits=[],
        probe_every=PROBE_EVERY,
        retention=None,
    )
    assert rows == []


async def test_a_worker_whose_lease_ran_out_claims_nothing(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    await harness.expire(worker)
    assert await harness.claim(worker) == []
    assert await harness.claim(worker + 1000) == []
    assert await harness.states() == {"pending": 1}


async def test_a_claim_takes_no_more_than_the_budget_and_says_when_there_is_more(harness: QueueHarness) -> None:
    await harness.add(*(f"s-{n}" for n in range(20)))
    worker = await harness.worker()
    quota = {"bot": harness.quota("bot", "600/minute")}  # a burst of 6
    first = await harness.queue.claim(worker, quota, 16)
    assert len(first.sessions) == 6
    await quota["bot"].block(timedelta(seconds=30))
    second = await harness.queue.claim(worker, quota, 10)
    assert second.sessions == []
    assert second.again_in is not None
    assert timedelta(seconds=25) < second.again_in <= timedelta(seconds=30)


async def test_bots_of_one_budget_share_it(harness: QueueHarness) -> None:
    await harness.add("a-1", bot="a")
    await harness.add("b-1", bot="b")
    worker = await harness.worker("a", "b")
    quota = harness.quota("same", "1/minute")
    claim = await harness.queue.claim(worker, {"a": quota, "b": quota}, 10)
    assert len(claim.sessions) == 1


async def test_bots_of_one_budget_take_turns_also_with_workers_in_step(harness: QueueHarness) -> None:
    for bot in "abc":
        await harness.add(*(f"{bot}-{n}" for n in range(30)), bot=bot)
    workers = [await harness.worker("a", "b", "c") for _ in range(2)]
    quotas = dict.fromkeys("abc", harness.quota("same", "1/minute"))
    served: list[str] = []
    for _ in range(24):
        await harness.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
        claims = await asyncio.gather(*(harness.queue.claim(worker, quotas, 10) for worker in workers))
        served += [session.bot for claim in claims for session in claim.sessions]
        assert all(claim.again_in is not None for claim in claims)
    assert Counter(served) == {"a": 8, "b": 8, "c": 8}
    assert all(len(set(served[n : n + 3])) == 3 for n in range(22)), served
    claim = await harness.queue.claim(workers[0], quotas, 10)
    assert claim.again_in is not None
    assert timedelta(seconds=30) < claim.again_in <= timedelta(seconds=62), "it comes again when there is a call, not at once"


async def test_both_kinds_of_a_bot_get_calls_of_a_budget_that_has_one_at_a_time(harness: QueueHarness) -> None:
    await harness.add(*(f"r-{n}" for n in range(60)))
    await harness.add(*(f"v-{n}" for n in range(60)), kind="voicemail")
    worker = await harness.worker()
    kinds: Counter[str] = Counter()
    for _ in range(40):
        await harness.fetch("UPDATE archive_budgets SET arrival = '-infinity'")
        claim = await harness.queue.claim(worker, {"bot": harness.quota("bot", "1/minute")}, 10)
        kinds.update(session.kind for session in claim.sessions)
    assert kinds.total() == 40
    assert min(kinds["recording"], kinds["voicemail"]) >= 5  # by lot: less than once in a million


async def test_a_refusal_blocks_the_budget_for_all_its_bots_and_for_nobody_else(harness: QueueHarness) -> None:
    for bot in "abc":
        await harness.add(f"{bot}-1", bot=bot)
    worker = await harness.worker("a", "b", "c")
    quotas = {**dict.fromkeys("ab", harness.quota("same")), "c": harness.quota("c")}
    await quotas["a"].block(timedelta(seconds=30))
    claim = await harness.queue.claim(worker, quotas, 10)
    assert ids(claim.sessions) == ["c-1"]


async def test_the_least_recently_served_bot_goes_first(harness: QueueHarness) -> None:
    for bot in "abc":
        await harness.add(*(f"{bot}-{n}" for n in range(3)), bot=bot)
    worker = await harness.worker("a", "b", "c")
    served = [(await harness.claim(worker, 1, "a", "b", "c"))[0].bot for _ in range(6)]
    assert sorted(served[:3]) == ["a", "b", "c"]
    assert served[3:] == served[:3]


async def test_slots_are_shared_among_the_bots_that_have_something(harness: QueueHarness) -> None:
    for bot in "abc":
        await harness.add(*(f"{bot}-{n}" for n in range(20)), bot=bot)
    claimed = await harness.claim(await harness.worker("a", "b", "c", "d"), 10, "a", "b", "c", "d")
    assert sorted(Counter(session.bot for session in claimed).values()) == [3, 3, 4]


async def test_a_held_kind_is_left_alone_while_the_other_goes_on(harness: QueueHarness) -> None:
    await harness.add("r-1")
    await harness.add("v-1", kind="voicemail")
    worker = await harness.worker()
    assert await harness.queue.hold("bot", "recording", "credentials_rejected", {"message": "401"})
    assert not await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    assert ids(await harness.claim(worker)) == ["v-1"]
    claim = await harness.queue.claim(worker, {"bot": harness.quota()}, 10)
    assert claim.again_in is not None
    assert PROBE_EVERY - timedelta(seconds=60) < claim.again_in <= PROBE_EVERY
    assert not await harness.queue.release("bot", "recording", ["media_host_refused"])
    assert await harness.queue.release("bot", "recording", ["media_host_refused", "credentials_rejected"])
    assert not await harness.queue.release("bot", "recording", ["credentials_rejected"])
    assert ids(await harness.claim(worker)) == ["r-1"]


async def test_a_held_kind_is_probed_by_one_session_an_interval_whoever_asks(harness: QueueHarness) -> None:
    await harness.add(*(f"s-{n}" for n in range(20)))
    workers = [await harness.worker() for _ in range(4)]
    await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    for _ in range(3):
        assert await harness.claim(workers[0]) == []
        await harness.fetch("UPDATE archive_holds SET probe_at = now()")
        found = await asyncio.gather(*(harness.claim(worker, 5) for worker in workers))
        (probe,) = [session for share in found for session in share]
        assert probe.probe
        await harness.settle(Attempt(probe), HandedBack("credentials_rejected"))


async def test_two_kinds_to_probe_take_no_more_than_the_slots(harness: QueueHarness) -> None:
    await harness.add("r-1", "r-2")
    await harness.add("v-1", "v-2", kind="voicemail")
    await harness.queue.hold("bot", "voicemail", "credentials_rejected", {})
    await harness.fetch("UPDATE archive_holds SET probe_at = now()")
    worker = await harness.worker()
    assert len(await harness.claim(worker, 1)) == 1
    assert len(await harness.claim(worker, 2)) <= 2


async def test_a_turn_to_probe_is_kept_while_the_budget_is_spent(harness: QueueHarness) -> None:
    await harness.add("s-1")
    worker = await harness.worker()
    await harness.queue.hold("bot", "recording", "credentials_rejected", {})
    await harness.fetch("UPDATE archive_holds SET probe_at = now()")
    quota = {"bot": harness.quota("bot", "60/minute")}
    await quota["bot"].block(timedelta(seconds=30))
    assert (await harness.queue.claim(worker, quota, 5)).sessions == []
    await harness.fetch("UPDATE archive_budgets SET blocked_until = now()")
    assert ids((await harness.queue.claim(worker, quota, 5)).sessions) == ["s-1"]


async def test_a_claim_tells_which_files_are_stored_already(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.fetch(
        """INSERT INTO archived_recordings
            (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
        SELECT bot, session_id, kind, n, n || '.wav', 'k/' || n, 1, repeat('0', 64), 'source', id
        FROM archive_queue, generate_series(1, 3) n"""
    )
    await harness.settle(Attempt(session), HandedBack("worker_stopped"))
    (again,) = await harness.claim(session.worker_id)
    assert [(known.ordinal, known.store_key) for known in again.known] == [(1, "k/1"), (2, "k/2"), (3, "k/3")]


async def test_one_bots_broken_claim_does_not_lose_what_the_other_brought(harness: QueueHarness) -> None:
    await harness.add("a-1", bot="a")
    await harness.add("b-1", bot="b")
    worker = await harness.worker("a", "b")
    await harness.fetch("UPDATE archive_bots SET served_at = now() WHERE name = 'b'")
    quotas = {name: harness.quota(name, "60000/minute") for name in "ab"}
    for quota in quotas.values():
        await quota.draw()
    async with harness.locked("SELECT FROM archive_budgets WHERE key = $1 FOR UPDATE", quotas["b"].key):
        claiming = asyncio.create_task(harness.queue.claim(worker, quotas, 10))
        await harness.fetch("SELECT pg_terminate_backend($1)", await harness.blocked())
        assert ids((await claiming).sessions) == ["a-1"]
    assert ids((await harness.queue.claim(worker, quotas, 10)).sessions) == ["b-1"]


async def test_what_a_claim_took_whose_answer_was_lost_is_put_back(harness: QueueHarness) -> None:
    await harness.add("s-1", "s-2")
    worker = await harness.worker()
    quota = {"bot": harness.quota("bot", "60000/minute")}
    await quota["bot"].draw()
    (mine,) = (await harness.queue.claim(worker, quota, 1)).sessions
    async with harness.locked("SELECT FROM archive_budgets FOR UPDATE"):
        claiming = asyncio.create_task(harness.queue.claim(worker, quota, 10))
        await harness.fetch("SELECT pg_terminate_backend($1)", await harness.blocked())
        with pytest.raises(DatabaseUnreachable):
            await claiming
    # The same statement, carried out, and nobody heard of it.
    lost = await harness.database.rows(
        sql("claim/sessions"),
        worker_id=worker,
        bot="bot",
        kind="recording",
        slots=10,
        budget="key",
        windows=[],
        limits=[],
        probe_every=PROBE_EVERY,
        retention=None,
    )
    await harness.queue.release_orphans(worker, [mine.id])
    (again,) = (await harness.queue.claim(worker, quota, 10)).sessions
    assert (again.id, again.epoch) == (lost[0]["id"], lost[0]["epoch"] + 2)
    assert await harness.history(again.session_id) == ["enqueued", "claimed", "handed_back", "claimed"]
    await harness.settle(Attempt(mine), Archived())
    await harness.settle(Attempt(again), Archived())
    stale = Session(**{**vars(again), "epoch": lost[0]["epoch"]})
    with pytest.raises(LeaseLost):
        await harness.settle(Attempt(stale), Archived())
