"""Old history goes as configured; everything else of a session stays."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.outcome import Archived
from archiver.queue import sessions
from archiver.queue.reports import SessionStory
from archiver.queue.sql import sql
from archiver.session import Attempt
from tests.queue.conftest import QueueHarness, nodes_of, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each

YEAR = timedelta(days=365)


async def ended(harness: QueueHarness, session_id: str, days: float) -> None:
    """A session that was archived so long ago."""
    session = await harness.claim_one(session_id)
    await harness.settle(Attempt(session, [stored_file()], calls=1), Archived())
    await harness.fetch(
        "UPDATE archive_queue SET finished_at = now() - make_interval(secs => $2) WHERE session_id = $1", session_id, days * 86400
    )


async def pruned(harness: QueueHarness, keep: timedelta = YEAR) -> int:
    """Remove until nothing is due; how many sessions it were."""
    total = 0
    while now := await harness.queue.prune(keep):
        total += now
    return total


async def shown(harness: QueueHarness, session_id: str) -> SessionStory:
    (story,) = await harness.reports.find_session(session_id, None, None)
    return story


async def test_only_the_history_of_what_ended_long_ago_goes_and_the_rest_of_it_stays(harness: QueueHarness) -> None:
    await ended(harness, "old", 400)
    await ended(harness, "young", 300)
    await harness.add("waiting")
    await harness.fetch("UPDATE archive_events SET at = at - interval '10 years', claimed_at = claimed_at - interval '10 years'")
    await harness.fetch("UPDATE archive_queue SET enqueued_at = enqueued_at - interval '10 years'")
    before = await harness.row("old")
    assert await pruned(harness) == 1
    assert await harness.history("old") == []
    assert await harness.history("young") == ["enqueued", "claimed", "archived"]
    assert await harness.history("waiting") == ["enqueued"]
    assert await harness.row("old") == before | {"enqueued_by": None}
    assert len((await shown(harness, "old")).recordings) == 1
    assert [(await shown(harness, name)).history_removed for name in ("old", "young", "waiting")] == [True, False, False]


async def test_a_session_brought_back_starts_a_new_history_that_goes_in_its_turn(harness: QueueHarness) -> None:
    await ended(harness, "s-1", 400)
    await harness.add("s-2")
    assert await pruned(harness) == 1
    await harness.operators.retry(ids=["s-1"], actor="me")
    assert await harness.history("s-1") == ["retried"]
    assert (await shown(harness, "s-1")).history_removed
    assert await pruned(harness) == 0
    await harness.operators.cancel(ids=["s-1"], reason="x", actor="me")
    await harness.fetch("UPDATE archive_queue SET finished_at = now() - interval '2 days' WHERE session_id = 's-1'")
    assert await pruned(harness, timedelta(days=1)) == 1
    assert await harness.history("s-1") == []


async def test_many_that_ended_in_the_same_moment_go_batch_by_batch(
    harness: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "PRUNE_BATCH", 7)
    await harness.fetch(
        "INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 'not valid ' || n FROM generate_series(1, 30) n"
    )
    await harness.add(*(f"s-{n}" for n in range(10)))
    await harness.operators.cancel(reason="x", actor="me")
    await harness.fetch("UPDATE archive_queue SET finished_at = date_trunc('day', now()) - interval '500 days'")
    assert await harness.queue.prune(YEAR) == 7
    assert await pruned(harness) == 33
    assert await harness.value("SELECT count(*) FROM archive_history") == 0


async def test_one_worker_removes_at_a_time_and_the_others_have_nothing_to_do(harness: QueueHarness) -> None:
    await ended(harness, "old", 400)
    async with harness.locked("SELECT FROM archive_pruning FOR UPDATE"):
        assert await harness.queue.prune(YEAR) == 0
    assert await harness.queue.prune(YEAR) == 1


async def test_a_history_is_whole_where_nothing_was_ever_removed(harness: QueueHarness) -> None:
    await ended(harness, "old", 400)
    await harness.fetch("DELETE FROM archive_events")  # not as configured: by whatever hand
    assert not (await shown(harness, "old")).history_removed


@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("plan", ["force_generic_plan", "force_custom_plan"])
async def test_looking_for_what_is_due_costs_the_same_however_much_has_ended(
    harness: QueueHarness, plan: str, analyzed: bool
) -> None:
    async with harness.database.connection() as connection:
        await connection.execute(
            """ALTER TABLE archive_queue DISABLE TRIGGER USER;
            INSERT INTO archive_queue (bot, session_id, state, reason, finished_at)
                SELECT 'bot', 's-' || n, (ARRAY['archived', 'archived', 'failed', 'cancelled'])[1 + n % 4], 'r',
                       now() - make_interval(mins => n) FROM generate_series(1, 40000) n;
            ALTER TABLE archive_queue ENABLE TRIGGER USER;
            INSERT INTO archive_events (queue_id, event, epoch, at)
                SELECT q.id, e, 1, q.finished_at FROM archive_queue q, unnest('{enqueued,claimed,asked,archived}'::text[]) e"""
        )
        if analyzed:
            await connection.execute("ANALYZE archive_queue; ANALYZE archive_events")
        await connection.execute(f"SET plan_cache_mode = {plan}")
        prune = sql("upkeep/prune_history")
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {prune.text}"

        async def touched(keep: timedelta, batch: int) -> int:
            (found,) = await connection.fetchval(explain, *prune.arguments({"keep": keep, "max_sessions": batch}))
            nodes = [node for node in nodes_of(found["Plan"]) if node["Actual Loops"]]
            large = ("archive_queue", "archive_events")
            assert not [n for n in nodes if n["Node Type"] == "Seq Scan" and n["Relation Name"] in large], found
            return int(nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"])

        await touched(YEAR, 500)  # what a connection reads once, of the catalogues
        assert await touched(YEAR, 500) < 100, "nothing is due"
        keep = timedelta(minutes=20000)
        batch = await touched(keep, 10)
        assert batch < 300 or not analyzed, "a batch costs what it removes; without statistics what is due may be sorted"
        while await connection.fetchval(prune.text, *prune.arguments({"keep": keep, "max_sessions": 5000})):
            pass
        # The dead entries of a removed history are none of the index that is asked.
        assert await touched(keep, 500) < 100, "nothing is due any more"
        assert await connection.fetchval("SELECT count(*) FROM archive_events") == 4 * 19999
