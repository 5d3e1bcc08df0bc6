"""Where all slots are held, what is so slow that it may never end makes room for what is due."""

from __future__ import annotations

from typing import Any

import pytest

from archiver.worker import claiming, progress
from tests.worker.conftest import Logged, WorkerHarness, session_id

SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_second": 3000, "times": None}
"""Above transfer.min_rate."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "READ_SECONDS", 0.05)
    monkeypatch.setattr(claiming, "POLL_SECONDS", 0.1)


def script(harness: WorkerHarness, number: int, size: int, *faults: dict[str, Any], **more: Any) -> str:
    one = session_id(number)
    recording = {"file_name": "a.wav", "audio": {"bytes": size, "seed": number}, "faults": list(faults)}
    harness.simulator.script({"session_id": one, "recordings": [recording], **more})
    return one


def settings(harness: WorkerHarness, concurrency: int, **retry: Any) -> Any:
    return harness.settings(worker={"concurrency": concurrency, "drain_grace_seconds": 0}, retry=retry).model_copy(
        update={"transfer": harness.settings().transfer.model_validate({"stall_timeout": "300ms"})}
    )


async def test_downloads_that_drip_do_not_hold_all_slots_for_good(harness: WorkerHarness, logged: Logged) -> None:
    drips = [script(harness, number, 1_000_000, SLOW) for number in range(3)]
    await harness.enqueue(*drips)
    async with harness.shift(settings(harness, 3, backoff_max="1h")) as shift:
        await harness.simulator.wait_for(lambda report: report["media"]["requests"] >= 3)
        others = [script(harness, number, 3000) for number in range(10, 15)]
        await harness.enqueue(*others)
        await harness.eventually("SELECT FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 5")
        yielded = await logged.until("transfer_yielded")
        await shift.stopped()
    sessions = await harness.sessions()
    row = sessions[yielded["session"]]
    assert (row["state"], row["reason"], row["failures"]) == ("pending", "yielded", 0)
    assert 0 < row["detail"]["bytes_per_second"] < 8192
    assert row["detail"]["expected"] == 1_000_000
    assert await harness.events(row["session_id"]) == ["enqueued", "claimed", "asked", "handed_back"]
    assert not harness.parts()


async def test_what_yields_again_costs_an_attempt_and_what_has_room_is_left_alone(harness: WorkerHarness) -> None:
    """Two that drip, and one slot: each makes room for the other, until one of them is given up."""
    await harness.enqueue(*(script(harness, number, 4800, SLOW) for number in range(2)))
    ended = await harness.drained(settings(harness, 1, max_attempts=1))
    assert ended.failed == 1
    sessions = (await harness.sessions()).values()
    assert sorted((row["state"], row["reason"]) for row in sessions) == [("archived", None), ("failed", "recording_slow")]
    events = [await harness.events(row["session_id"]) for row in sessions]
    assert [event.count("handed_back") for event in events] == [1, 1]


async def test_what_is_slow_and_yet_gets_on_is_left_alone(harness: WorkerHarness) -> None:
    steady = script(harness, 0, 60_000, {**SLOW, "bytes_per_second": 40_000})
    await harness.enqueue(steady, script(harness, 1, 3000))
    assert (await harness.drained(settings(harness, 1))).complete
    assert "handed_back" not in await harness.events(steady)


async def test_a_recording_that_drips_in_an_answer_makes_room_as_well(harness: WorkerHarness) -> None:
    drip = script(harness, 0, 200_000, SLOW)
    await harness.enqueue(drip, script(harness, 1, 3000))
    terms = settings(harness, 1, backoff_max="1h")
    bots = (terms.bots[0].model_copy(update={"api": "v1"}),)
    async with harness.shift(terms.model_copy(update={"bots": bots})) as shift:
        await harness.eventually("SELECT FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    assert (await harness.sessions())[drip]["reason"] == "yielded"
