"""Settling in batches: what joins what, and what one bad outcome does to the others."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from archiver.errors import DatabaseUnreachable
from archiver.outcome import Archived, Outcome
from archiver.queue.sessions import Queue
from archiver.session import Attempt, Session, State
from archiver.worker import settling
from archiver.worker.lease import Lease, boottime
from archiver.worker.settling import Ended, Settling
from tests.queue.conftest import QueueHarness, stored_file


class Counted(Queue):
    """The real queue, telling the size of every batch, and failing when told to."""

    def __init__(self, queue_harness: QueueHarness) -> None:
        super().__init__(queue_harness.database, queue_harness.queue._retry)
        self.batches: list[int] = []
        self.failures: list[Exception] = []

    async def settle(self, ended: Any) -> list[State | None]:
        self.batches.append(len(ended))
        if self.failures:
            raise self.failures.pop()
        return await super().settle(ended)


class Desk:
    """Settling, with what it tells of."""

    def __init__(self, queue_harness: QueueHarness) -> None:
        self.queue = Counted(queue_harness)
        self.told: dict[str, State | None] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.settling = Settling(self.queue, written=self._written)
        self.lease = Lease(1, timedelta(minutes=5), boottime())

    async def _written(self, attempt: Attempt, outcome: Outcome, state: State | None) -> None:
        self.told[attempt.session.session_id] = state
        self.outcomes[attempt.session.session_id] = outcome

    def add(self, *attempts: Attempt) -> None:
        for attempt in attempts:
            self.settling.add(Ended(attempt, Archived(), self.lease))


@pytest.fixture
def desk(queue_harness: QueueHarness) -> Desk:
    return Desk(queue_harness)


async def claimed(queue_harness: QueueHarness, count: int) -> list[Session]:
    await queue_harness.add(*(f"s-{n}" for n in range(count)))
    return await queue_harness.claim(await queue_harness.worker(), count)


async def test_outcomes_of_one_moment_are_written_together(queue_harness: QueueHarness, desk: Desk) -> None:
    desk.add(*map(Attempt, await claimed(queue_harness, 20)))
    assert len(desk.settling) == len(desk.settling.sessions) == 20
    await desk.settling.finished()
    assert desk.queue.batches == [20]
    assert list(desk.told.values()) == [State.ARCHIVED] * 20
    assert await queue_harness.states() == {"archived": 20}
    assert len(desk.settling) == 0


async def test_nobody_need_ask_for_it(queue_harness: QueueHarness, desk: Desk) -> None:
    desk.add(*map(Attempt, await claimed(queue_harness, 2)))
    async with asyncio.timeout(20):
        while len(desk.settling):  # noqa: ASYNC110  # that it comes by itself is the point
            await asyncio.sleep(0.01)
    assert desk.queue.batches == [2]


async def test_no_batch_is_larger_than_its_bound(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "BATCH", 10)
    desk.add(*map(Attempt, await claimed(queue_harness, 24)))
    await desk.settling.finished()
    assert sorted(desk.queue.batches) == [4, 10, 10]


async def test_what_nobody_can_join_need_not_wait(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "DELAY_SECONDS", 3600)
    desk.add(*map(Attempt, await claimed(queue_harness, 3)))
    desk.settling.flush()
    async with asyncio.timeout(20):
        while len(desk.settling):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
    assert desk.queue.batches == [3]


async def test_a_lost_session_is_lost_alone(queue_harness: QueueHarness, desk: Desk) -> None:
    sessions = await claimed(queue_harness, 5)
    await queue_harness.operators.cancel(ids=["s-2"], bot=None, kind=None, reason="why", actor="me")
    desk.add(*map(Attempt, sessions))
    await desk.settling.finished()
    assert {one for one, state in desk.told.items() if state is None} == {"s-2"}
    assert desk.queue.batches == [5]


async def test_one_that_the_database_refuses_does_not_take_the_others_along(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "LATER_SECONDS", 0.01)
    attempts = [Attempt(one) for one in await claimed(queue_harness, 5)]
    attempts[3].stored.append(stored_file())
    attempts[3].stored[0].__dict__["bytes"] = -1  # the ledger's CHECK
    desk.add(*attempts)
    await desk.settling.finished()
    assert desk.queue.batches == [5] + [1] * 11
    assert [desk.told[f"s-{n}"] for n in range(5)] == ["archived", "archived", "archived", "pending", "archived"]
    row = await queue_harness.row("s-3")
    assert row["reason"] == "internal_error", "after six refusals the plainest outcome is written"
    (named,) = row["detail"]["stored"]
    assert attempts[3].stored[0].store_key in named
    assert attempts[3].stored[0].sha256 in named


async def test_a_file_that_is_stored_stays_recorded_when_what_was_noted_is_refused(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "LATER_SECONDS", 0.01)
    (session,) = await claimed(queue_harness, 1)
    attempt = Attempt(session)
    attempt.stored.append(stored_file())
    attempt.note("asked", answer="what no statement takes")
    attempt.events[0]["at"] = "no time"
    desk.add(attempt)
    await desk.settling.finished()
    assert desk.told == {"s-0": State.ARCHIVED}
    (recorded,) = await queue_harness.fetch("SELECT store_key, sha256 FROM archived_recordings")
    assert recorded["store_key"] == attempt.stored[0].store_key
    events = await queue_harness.fetch("SELECT event FROM archive_history ORDER BY at, id, place")
    assert [row["event"] for row in events][-2:] == ["notes_refused", "archived"]


async def test_while_the_database_is_away_it_is_tried_again(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "LATER_SECONDS", 0.01)
    desk.queue.failures += [DatabaseUnreachable("away")] * 5
    desk.add(*map(Attempt, await claimed(queue_harness, 5)))
    await desk.settling.finished()
    assert desk.queue.batches == [5] + [1] * 9
    assert set(desk.told.values()) == {State.ARCHIVED}


async def test_nothing_is_written_under_a_lease_that_is_lost(queue_harness: QueueHarness, desk: Desk) -> None:
    attempts = [Attempt(one) for one in await claimed(queue_harness, 2)]
    desk.lease.give_up()
    desk.add(*attempts)
    await desk.settling.finished()
    assert desk.queue.batches == []
    assert desk.told == {"s-0": None, "s-1": None}
    assert await queue_harness.states() == {"claimed": 2}


async def test_it_stops_trying_when_the_lease_is_lost(
    queue_harness: QueueHarness, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "LATER_SECONDS", 0.01)
    desk.lease = Lease(1, timedelta(seconds=1), boottime())
    desk.queue.failures += [DatabaseUnreachable("away")] * 1_000_000
    desk.add(*map(Attempt, await claimed(queue_harness, 2)))
    async with asyncio.timeout(30):
        await desk.settling.finished()
    assert desk.told == {"s-0": None, "s-1": None}


async def test_a_listener_that_fails_keeps_nothing_from_the_others(queue_harness: QueueHarness, desk: Desk) -> None:
    told: list[str] = []

    async def failing(attempt: Attempt, outcome: Outcome, state: State | None) -> None:
        told.append(attempt.session.session_id)
        raise RuntimeError("a defect")

    desk.settling._written = failing
    desk.add(*map(Attempt, await claimed(queue_harness, 3)))
    await desk.settling.finished()
    assert sorted(told) == ["s-0", "s-1", "s-2"]
    assert len(desk.settling) == 0


async def test_a_row_that_somebody_has_locked_keeps_only_itself_waiting(queue_harness: QueueHarness, desk: Desk) -> None:
    desk.queue.failures.append(DatabaseUnreachable("TimeoutError"))  # what the wait for the lock ends with, after half a minute
    attempts = [Attempt(one) for one in await claimed(queue_harness, 3)]
    async with queue_harness.locked("SELECT 1 FROM archive_queue WHERE session_id = 's-1' FOR UPDATE"):
        desk.add(*attempts)
        desk.settling.flush()
        async with asyncio.timeout(20):
            while len(desk.told) < 2:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.01)
        assert set(desk.told) == {"s-0", "s-2"}
    await desk.settling.finished()
    assert set(desk.told.values()) == {State.ARCHIVED}
