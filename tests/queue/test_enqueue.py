"""Sessions put into the queue by the program: what is new is inserted, what waits is raised or brought forward."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from archiver.outcome import Unavailable
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
