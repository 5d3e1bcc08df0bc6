"""Sessions put into the queue by the program: what is new is inserted, what waits is raised or brought forward."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest

from archiver.errors import ArchiverError, DatabaseError
from archiver.outcome import Unavailable
from archiver.queue.enqueueing import Preview, enqueue_all
from archiver.queue.sessions import NewSession
from archiver.session import Attempt
from tests.queue.conftest import QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python; test_model.py goes through it on each


async def enqueue(harness: QueueHarness, *names: str, **terms: Any) -> tuple[int, int]:
    return await harness.queue.enqueue([NewSession("bot", name, **terms) for name in names], actor="me")


async def test_enqueue_counts_new_and_raised(harness: QueueHarness) -> None:
    assert await enqueue(harness, "s-1", "s-2") == (2, 0)
    assert await enqueue(harness, "s-1", "s-2", "s-3") == (1, 0)
    assert await enqueue(harness, "s-1", "s-4", priority="high") == (1, 1)
    assert await enqueue(harness, "s-1", "s-2", priority="high") == (0, 1)
    assert await enqueue(harness) == (0, 0)
    assert await harness.history("s-2") == ["enqueued", "raised"]


async def test_enqueue_never_lowers_a_priority(harness: QueueHarness) -> None:
    await enqueue(harness, "s-1", priority="high")
    for lower in ("normal", "low", "high"):
        assert await enqueue(harness, "s-1", priority=lower) == (0, 0)
    assert (await harness.row("s-1"))["priority"] == "high"


async def test_a_session_twice_in_one_batch_is_one_with_the_higher_priority(harness: QueueHarness) -> None:
    twice = [NewSession("bot", "s-1", priority=priority) for priority in ("low", "high", "normal")]
    assert await harness.queue.enqueue([*twice, NewSession("bot", "s-1", kind="voicemail")], actor="me") == (2, 0)
    assert await harness.value("SELECT priority FROM archive_queue WHERE kind = 'recording'") == "high"


async def test_enqueue_leaves_a_claimed_and_a_finished_session_as_it_is(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    claimed = await harness.row("s-1")
    assert await enqueue(harness, "s-1", priority="high", user_id="u", metadata={"a": 1}) == (0, 0)
    assert await harness.row("s-1") == claimed
    await harness.settle(Attempt(session), Unavailable("media_unavailable"))
    finished = await harness.row("s-1")
    assert await enqueue(harness, "s-1", priority="high") == (0, 0)
    assert await harness.row("s-1") == finished


async def test_what_is_known_of_a_session_is_kept(harness: QueueHarness) -> None:
    start = await harness.queue.clock() - timedelta(days=3)
    await enqueue(harness, "s-1", user_id="u-1", started_at=start, metadata={"line": 7, "nul": "a\0b"})
    row = await harness.row("s-1")
    assert (row["user_id"], row["started_at"], row["archive_date"]) == ("u-1", start, start)
    assert row["metadata"] == {"line": 7, "nul": "a\ufffdb"}


async def test_overlapping_batches_at_once_lose_nothing(harness: QueueHarness) -> None:
    names = [f"s-{n}" for n in range(300)]
    batches = [names, names[::-1], names[150:] + names[:150], names[::2] + names[1::2]]
    priorities = ("normal", "high", "low", "high")
    counts = await asyncio.gather(
        *(enqueue(harness, *batch, priority=priority) for batch, priority in zip(batches, priorities, strict=True))
    )
    assert sum(new for new, _ in counts) == 300
    assert await harness.states() == {"pending": 300}


async def test_a_deadlock_with_a_program_that_inserts_by_itself_is_waited_out(harness: QueueHarness) -> None:
    # The server ends whoever looks for the deadlock first: on a slow machine that may be the other.
    while (counts := await _deadlock(harness)) is None:
        await harness.fetch("DELETE FROM archive_queue")
    assert counts == (0, 0)
    assert await harness.states() == {"pending": 2}


async def _deadlock(harness: QueueHarness) -> tuple[int, int] | None:
    """What an enqueue tells that lost a deadlock; None: the other lost it."""
    other = await asyncpg.connect(harness.database.dsn)
    try:
        async with other.transaction():
            await other.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-2')")
            ours = asyncio.create_task(enqueue(harness, "s-1", "s-2"))
            await harness.blocked()
            try:
                # Now the other asks for what ours has; ours has waited for longer.
                await other.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')")
            except asyncpg.DeadlockDetectedError:
                await other.execute("ROLLBACK")
                assert await ours == (2, 0)
                return None
        return await ours
    finally:
        await other.close()


# --- all or nothing, and only looking


def batches(*groups: str) -> list[list[NewSession]]:
    return [[NewSession("bot", name, priority="high") for name in group.split()] for group in groups]


async def names(harness: QueueHarness) -> list[str]:
    return [row["session_id"] for row in await harness.fetch("SELECT session_id FROM archive_queue ORDER BY 1")]


async def test_all_are_enqueued_as_by_themselves(harness: QueueHarness) -> None:
    await harness.add("waits", priority="low")
    assert await enqueue_all(harness.database, lambda: batches("a b", "b waits", "c"), actor="me") == (3, 1)
    assert await harness.states() == {"pending": 4}
    assert await harness.history("waits") == ["enqueued", "raised"]
    assert await enqueue_all(harness.database, list, actor="me") == (0, 0)


async def test_two_lists_that_lock_each_other_out_are_both_enqueued(harness: QueueHarness) -> None:
    middle = "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 'middle')"
    lists = [batches("a", "middle", "b"), batches("b", "middle", "a")]
    async with asyncio.timeout(40), asyncio.TaskGroup() as group, harness.locked(middle):
        tasks = [group.create_task(enqueue_all(harness.database, partial(iter, one), actor="me")) for one in lists]
        await harness.blocked(len(tasks))
    assert sorted(task.result()[0] for task in tasks) == [0, 2]
    assert await names(harness) == ["a", "b", "middle"]


async def test_none_is_enqueued_where_the_connection_breaks_half_way(harness: QueueHarness) -> None:
    async with harness.locked("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 'c')"):
        task = asyncio.create_task(enqueue_all(harness.database, lambda: batches("a", "b", "c", "d"), actor="me"))
        await harness.fetch("SELECT pg_terminate_backend($1)", await harness.blocked())
        with pytest.raises(DatabaseError) as failed:
            await task
    assert "nothing was enqueued" in failed.value.hint
    assert await names(harness) == ["c"], "the other's alone"


async def test_none_is_enqueued_where_it_is_cancelled_or_a_batch_cannot_be_had(harness: QueueHarness) -> None:
    def broken() -> Iterator[list[NewSession]]:
        yield from batches("a")
        raise ArchiverError("the disk is gone")

    with pytest.raises(ArchiverError, match="disk"):
        await enqueue_all(harness.database, broken, actor="me")
    async with harness.locked("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 'c')"):
        task = asyncio.create_task(enqueue_all(harness.database, lambda: batches("a", "c"), actor="me"))
        await harness.blocked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await names(harness) == ["c"]


async def test_a_broken_end_is_not_called_nothing(harness: QueueHarness) -> None:
    """A constraint that is looked at when all is committed stands for a COMMIT whose answer is lost."""
    await harness.fetch(
        """CREATE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$"""
    )
    await harness.fetch(
        "CREATE CONSTRAINT TRIGGER breaking AFTER INSERT ON archive_queue DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION break_off()"
    )
    with pytest.raises(DatabaseError) as failed:
        await enqueue_all(harness.database, lambda: batches("a"), actor="me")
    assert "either all of these sessions were enqueued or none" in failed.value.hint


async def test_a_preview_says_what_enqueueing_would_and_writes_nothing(harness: QueueHarness) -> None:
    await harness.add("low", "ended", priority="low")
    await harness.add("low", bot="other", priority="low")
    await harness.operators.cancel(ids=["ended"], reason="x", actor="me")
    before = await harness.fetch("SELECT * FROM archive_queue ORDER BY id")
    preview = Preview(harness.database)
    given = batches("new low low ended", "new newer")
    seen = [await preview.look(batch) for batch in given]
    assert await harness.fetch("SELECT * FROM archive_queue ORDER BY id") == before
    assert seen == [(1, 1), (1, 0)] == [await harness.queue.enqueue(batch, actor="me") for batch in given]
