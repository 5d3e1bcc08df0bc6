"""What a worker makes of late changes: recordings that are published after the platform said there were none."""

from __future__ import annotations

from datetime import timedelta

from archiver.config import Settings
from tests.worker.conftest import Logged, Plant, session_id

NONE = {"status": "media_unavailable"}
LATE = [NONE, {"status": "success"}]
DUE = "UPDATE archive_queue SET recheck_at = now() - interval '1 minute' WHERE recheck_at IS NOT NULL"


async def unavailable(plant: Plant, count: int, answers: list[dict[str, str]]) -> list[str]:
    """So many sessions that were asked for once, and are due to be asked for again."""
    ids = [session_id(0x1000 + number) for number in range(count)]
    for one in ids:
        plant.simulator.script({"session_id": one, "answers": answers})
    await plant.enqueue(*ids)
    assert (await plant.drained()).complete
    assert await plant.states() == {"unavailable": count}
    await plant.rows(DUE)
    return ids


async def test_a_recording_that_is_published_late_is_archived(plant: Plant, logged: Logged) -> None:
    one = session_id(1)
    plant.simulator.script({"session_id": one, "answers": [NONE, NONE, {"status": "media_in_progress"}, {"status": "success"}]})
    await plant.enqueue(one)
    settings = plant.settings(retry={"recheck_unavailable": ["100ms", "500ms"]})
    async with plant.shift(settings) as shift:
        await plant.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    row = (await plant.sessions())[one]
    assert (row["reason"], row["rechecks"], row["calls"], row["recheck_at"]) == (None, 3, 4, None)
    assert row["first_asked_at"] < row["last_asked_at"]
    turn = ["claimed", "asked"]
    assert await plant.events(one) == [
        "enqueued", *turn, "unavailable", *turn, "unavailable", *turn, "not_ready", *turn, "stored", "archived",
    ]  # fmt: skip
    assert [entry.get("reason") for entry in logged.named("session_rechecked")] == ["media_unavailable", None]
    assert shift.worker.tally.ended == {"unavailable": 1, "rechecked": 2, "archived": 1}
    await plant.assert_accounted_for()


async def test_it_is_unavailable_also_while_it_is_asked_for_again(plant: Plant) -> None:
    recording = {"file_name": "a.wav", "audio": {"bytes": 6000}, "faults": [{"kind": "stall", "at": 1000}]}
    plant.simulator.script({"session_id": session_id(1), "answers": LATE, "recordings": [recording]})
    await plant.enqueue(session_id(1))
    await plant.drained()
    await plant.rows(DUE)
    async with plant.shift() as shift:
        await plant.downloading(1)
        assert await plant.states() == {"unavailable": 1}
        assert (await plant.drained()).complete, "another worker's drain doesn't wait for it"
        await shift.stopped(hurry=True)
    row = (await plant.sessions())[session_id(1)]
    assert (row["state"], row["reason"]) == ("unavailable", "media_unavailable")
    assert (await plant.events(session_id(1)))[-1] == "handed_back"
    async with plant.shift():
        await plant.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
    assert plant.parts() == []
    await plant.assert_accounted_for()


async def test_a_drain_does_not_wait_for_rechecks_even_if_they_are_due(plant: Plant) -> None:
    ids = await unavailable(plant, 3, LATE)
    assert (await plant.drained(timeout=10)).complete
    assert await plant.states() == {"unavailable": 3}
    assert plant.simulator.report()["api"]["by_session"] == dict.fromkeys(ids, 1)


async def test_a_drain_makes_some_beside_its_other_work(plant: Plant) -> None:
    await unavailable(plant, 40, LATE)
    await plant.scripted(64)
    assert (await plant.drained(plant.settings(worker={"concurrency": 16}))).complete
    states = await plant.states()
    made = 40 - states["unavailable"]
    assert states["archived"] == 64 + made
    assert 1 <= made <= 20, "one of the sixteen at the beginning; about one in eight from then on"


async def test_a_drain_that_is_to_makes_those_that_are_due_and_no_others(plant: Plant) -> None:
    ids = await unavailable(plant, 40, LATE)
    await plant.rows("UPDATE archive_queue SET recheck_at = now() + interval '1 hour' WHERE session_id = $1", ids[0])
    plant.simulator.script({"session_id": ids[1], "answers": [NONE]})
    await plant.scripted(5)
    assert (await plant.drained(_short(plant), night=True, max_wait=timedelta(0), timeout=30)).complete
    assert await plant.states() == {"unavailable": 2, "archived": 43}
    calls = plant.simulator.report()["api"]["by_session"]
    assert (calls[ids[0]], calls[ids[1]], calls[ids[2]]) == (1, 2, 2)
    await plant.assert_accounted_for()


def _short(plant: Plant) -> Settings:
    """With a schedule whose next time comes while the drain still runs: it isn't waited for."""
    return plant.settings(retry={"recheck_unavailable": ["1ms", "2ms", "7d"]}, worker={"concurrency": 4})


async def test_a_drain_that_is_to_make_rechecks_leaves_a_paused_bot_alone(plant: Plant) -> None:
    await unavailable(plant, 2, LATE)
    await plant.rows("UPDATE archive_bots SET paused_at = now()")
    assert (await plant.drained(night=True, timeout=10)).complete
    assert await plant.states() == {"unavailable": 2}


async def test_two_drains_make_each_recheck_once(plant: Plant) -> None:
    ids = await unavailable(plant, 40, LATE)
    async with plant.shift(drain=True, night=True) as first, plant.shift(drain=True, night=True) as second:
        assert (await first.ended()).complete
        assert (await second.ended()).complete
        assert await plant.states() == {"archived": 40}
    assert plant.simulator.report()["api"]["by_session"] == dict.fromkeys(ids, 2)
    await plant.assert_accounted_for()


async def test_an_archived_session_that_is_retried_brings_what_is_new_and_keeps_its_standing(plant: Plant) -> None:
    one, gone = await plant.scripted(2)
    await plant.drained()
    before = plant.files()
    more = [
        {"file_name": "first.wav", "audio": {"bytes": 3000, "seed": 77}},
        {"file_name": "a.wav", "audio": {"bytes": 2000, "seed": 0}},
    ]
    plant.simulator.script({"session_id": one, "recordings": more})
    plant.simulator.script({"session_id": gone, "answers": [NONE]})
    await plant.rows(
        """UPDATE archive_queue SET state = 'pending', finished_at = NULL, archived_before = true, epoch = epoch + 1
        WHERE state = 'archived'"""
    )
    assert (await plant.drained()).complete
    sessions = await plant.sessions()
    assert {(row["state"], row["reason"]) for row in sessions.values()} == {("archived", None), ("archived", "kept")}
    assert sessions[gone]["detail"]["reason"] == "media_unavailable"
    after = plant.files()
    assert before.items() <= after.items()
    assert [key.rpartition("/")[2] for key in after.keys() - before.keys()] == ["first.wav"]
