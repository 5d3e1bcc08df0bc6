"""Where all slots are held, what is so slow that it may never end makes room for what is due."""

from __future__ import annotations

from typing import Any

import pytest

from archiver.worker import loop as worker
from archiver.worker import progress
from tests.worker.conftest import Logged, Plant, session_id

SLOW: dict[str, Any] = {"kind": "slow", "bytes_per_second": 3000, "times": None}
"""Above transfer.min_rate."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "READ_SECONDS", 0.05)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.1)


def script(plant: Plant, number: int, size: int, *faults: dict[str, Any], **more: Any) -> str:
    one = session_id(number)
    recording = {"file_name": "a.wav", "audio": {"bytes": size, "seed": number}, "faults": list(faults)}
    plant.simulator.script({"session_id": one, "recordings": [recording], **more})
    return one


def settings(plant: Plant, concurrency: int, **retry: Any) -> Any:
    return plant.settings(worker={"concurrency": concurrency, "drain_grace_seconds": 0}, retry=retry).model_copy(
        update={"transfer": plant.settings().transfer.model_validate({"stall_timeout": "300ms"})}
    )


async def test_downloads_that_drip_do_not_hold_all_slots_for_good(plant: Plant, logged: Logged) -> None:
    drips = [script(plant, number, 1_000_000, SLOW) for number in range(3)]
    await plant.enqueue(*drips)
    async with plant.shift(settings(plant, 3, backoff_max="1h")) as shift:
        await plant.simulator.wait_for(lambda report: report["media"]["requests"] >= 3)
        others = [script(plant, number, 3000) for number in range(10, 15)]
        await plant.enqueue(*others)
        await plant.eventually("SELECT FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 5")
        yielded = await logged.until("transfer_yielded")
        await shift.stopped()
    sessions = await plant.sessions()
    row = sessions[yielded["session"]]
    assert (row["state"], row["reason"], row["failures"]) == ("pending", "yielded", 0)
    assert 0 < row["detail"]["bytes_per_second"] < 8192
    assert row["detail"]["expected"] == 1_000_000
    assert await plant.events(row["session_id"]) == ["enqueued", "claimed", "asked", "handed_back"]
    assert not plant.parts()


async def test_what_yields_again_costs_an_attempt_and_what_has_room_is_left_alone(plant: Plant) -> None:
    """Two that drip, and one slot: each makes room for the other, until one of them is given up."""
    await plant.enqueue(*(script(plant, number, 4800, SLOW) for number in range(2)))
    ended = await plant.drained(settings(plant, 1, max_attempts=1))
    assert ended.failed == 1
    sessions = (await plant.sessions()).values()
    assert sorted((row["state"], row["reason"]) for row in sessions) == [("archived", None), ("failed", "recording_slow")]
    events = [await plant.events(row["session_id"]) for row in sessions]
    assert [event.count("handed_back") for event in events] == [1, 1]


async def test_what_is_slow_and_yet_gets_on_is_left_alone(plant: Plant) -> None:
    steady = script(plant, 0, 60_000, {**SLOW, "bytes_per_second": 40_000})
    await plant.enqueue(steady, script(plant, 1, 3000))
    assert (await plant.drained(settings(plant, 1))).complete
    assert "handed_back" not in await plant.events(steady)


async def test_a_recording_that_drips_in_an_answer_makes_room_as_well(plant: Plant) -> None:
    drip = script(plant, 0, 200_000, SLOW)
    await plant.enqueue(drip, script(plant, 1, 3000))
    terms = settings(plant, 1, backoff_max="1h")
    bots = (terms.bots[0].model_copy(update={"api": "v1"}),)
    async with plant.shift(terms.model_copy(update={"bots": bots})) as shift:
        await plant.eventually("SELECT FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    assert (await plant.sessions())[drip]["reason"] == "yielded"
