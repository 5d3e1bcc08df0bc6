"""Settling in batches: what joins what, and what one bad outcome does to the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from archiver.errors import DatabaseError, DatabaseUnreachable, LeaseLost
from archiver.outcome import Archived, Failed
from archiver.queue import settling
from archiver.queue.sessions import Queue
from archiver.queue.settling import Settling
from archiver.session import Attempt, Session, State
from tests.queue.conftest import Bench, stored_file


class Counted(Queue):
    """The real queue, telling the size of every batch, and failing when told to."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.database, bench.queue._retry)
        self.batches: list[int] = []
        self.failures: list[Exception] = []

    async def settle(self, ended: Any) -> list[State | None]:
        self.batches.append(len(ended))
        if self.failures:
            raise self.failures.pop()
        return await super().settle(ended)


@pytest.fixture
def counted(bench: Bench) -> Counted:
    return Counted(bench)


async def claimed(bench: Bench, count: int) -> list[Session]:
    await bench.fetch(
        "INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's-' || n FROM generate_series(1, $1::int) n", count
    )
    return await bench.claim(await bench.worker(), count)


async def test_outcomes_of_one_moment_are_written_together(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    sessions = await claimed(bench, 20)
    assert await asyncio.gather(*(batches.settle(Attempt(one), Archived()) for one in sessions)) == [State.ARCHIVED] * 20
    assert counted.batches == [20]
    assert await bench.states() == {"archived": 20}


async def test_no_batch_is_larger_than_its_bound(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    sessions = await claimed(bench, settling.BATCH * 2 + 10)
    await asyncio.gather(*(batches.settle(Attempt(one), Archived()) for one in sessions))
    assert sorted(counted.batches) == [10, settling.BATCH, settling.BATCH]


async def test_what_nobody_can_join_does_not_wait(bench: Bench, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "DELAY_SECONDS", 3600)
    batches = Settling(counted, more=lambda: False)
    for one in await claimed(bench, 2):
        assert await asyncio.wait_for(batches.settle(Attempt(one), Archived()), 20) == State.ARCHIVED
    assert counted.batches == [1, 1]


async def test_a_lost_session_is_lost_alone(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    sessions = await claimed(bench, 5)
    await bench.queue.cancel(ids=[sessions[2].session_id], bot=None, kind=None, reason="why", actor="me")
    ends = await asyncio.gather(*(batches.settle(Attempt(one), Archived()) for one in sessions), return_exceptions=True)
    assert [type(end) for end in ends] == [State, State, LeaseLost, State, State]
    assert counted.batches == [5]


async def test_one_that_the_database_refuses_does_not_take_the_others_along(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    sessions = await claimed(bench, 5)
    attempts = [Attempt(one) for one in sessions]
    attempts[3].stored.append(stored_file())
    attempts[3].stored[0].__dict__["bytes"] = -1  # the ledger's CHECK
    ends = await asyncio.gather(*(batches.settle(one, Archived()) for one in attempts), return_exceptions=True)
    assert [type(end) for end in ends] == [State, State, State, DatabaseError, State]
    assert counted.batches == [5, 1, 1, 1, 1, 1]
    assert await batches.settle(Attempt(sessions[3]), Failed("why")) == State.FAILED


async def test_while_the_database_is_away_nothing_is_tried_one_by_one(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    sessions = await claimed(bench, 5)
    counted.failures.append(DatabaseUnreachable("away"))
    ends = await asyncio.gather(*(batches.settle(Attempt(one), Archived()) for one in sessions), return_exceptions=True)
    assert [type(end) for end in ends] == [DatabaseUnreachable] * 5
    assert counted.batches == [5]
    assert await asyncio.gather(*(batches.settle(Attempt(one), Archived()) for one in sessions)) == [State.ARCHIVED] * 5


async def test_one_whose_attempt_is_cancelled_meanwhile_is_written_all_the_same(bench: Bench, counted: Counted) -> None:
    batches = Settling(counted, more=lambda: True)
    first, second = await claimed(bench, 2)
    impatient = asyncio.create_task(batches.settle(Attempt(first), Archived()))
    patient = asyncio.create_task(batches.settle(Attempt(second), Archived()))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == State.ARCHIVED
    assert await bench.states() == {"archived": 2}
