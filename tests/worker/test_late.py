"""What a worker makes of late changes: recordings that are published after the platform said there were none."""

from __future__ import annotations

from datetime import timedelta

from archiver.config import Settings
from tests.worker.conftest import Logged, WorkerHarness, session_id

NONE = {"status": "media_unavailable"}
LATE = [NONE, {"status": "success"}]
DUE = "UPDATE archive_queue SET recheck_at = now() - interval '1 minute' WHERE recheck_at IS NOT NULL"


async def unavailable(harness: WorkerHarness, count: int, answers: list[dict[str, str]]) -> list[str]:
    """So many sessions that were asked for once, and are due to be asked for again."""
    ids = [session_id(0x1000 + number) for number in range(count)]
    for one in ids:
        harness.simulator.script({"session_id": one, "answers": answers})
    await harness.enqueue(*ids)
    assert (await harness.drained()).complete
    assert await harness.states() == {"unavailable": count}
    await harness.rows(DUE)
    return ids


async def test_a_recording_that_is_published_late_is_archived(harness: WorkerHarness, logged: Logged) -> None:
    one = session_id(1)
    harness.simulator.script({"session_id": one, "answers": [NONE, NONE, {"status": "media_in_progress"}, {"status": "success"}]})
    await harness.enqueue(one)
    settings = harness.settings(retry={"recheck_unavailable": ["100ms", "500ms"]})
    async with harness.shift(settings) as shift:
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
        await shift.stopped()
    row = (await harness.sessions())[one]
    assert (row["reason"], row["rechecks"], row["calls"], row["recheck_at"]) == (None, 3, 4, None)
    assert row["first_asked_at"] < row["last_asked_at"]
    turn = ["claimed", "asked"]
    assert await harness.events(one) == [
        "enqueued", *turn, "unavailable", *turn, "unavailable", *turn, "not_ready", *turn, "stored", "archived",
    ]  # fmt: skip
    assert [entry.get("reason") for entry in logged.named("session_rechecked")] == ["media_unavailable", None]
    assert shift.worker.tally.ended == {"unavailable": 1, "rechecked": 2, "archived": 1}
    await harness.assert_accounted_for()


async def test_it_is_unavailable_also_while_it_is_asked_for_again(harness: WorkerHarness) -> None:
    recording = {"file_name": "a.wav", "audio": {"bytes": 6000}, "faults": [{"kind": "stall", "at": 1000}]}
    harness.simulator.script({"session_id": session_id(1), "answers": LATE, "recordings": [recording]})
    await harness.enqueue(session_id(1))
    await harness.drained()
    await harness.rows(DUE)
    async with harness.shift() as shift:
        await harness.downloading(1)
        assert await harness.states() == {"unavailable": 1}
        assert (await harness.drained()).complete, "another worker's drain doesn't wait for it"
        await shift.stopped(hurry=True)
    row = (await harness.sessions())[session_id(1)]
    assert (row["state"], row["reason"]) == ("unavailable", "media_unavailable")
    assert (await harness.events(session_id(1)))[-1] == "handed_back"
    async with harness.shift():
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
    assert harness.parts() == []
    await harness.assert_accounted_for()


async def test_a_drain_does_not_wait_for_rechecks_even_if_they_are_due(harness: WorkerHarness) -> None:
    ids = await unavailable(harness, 3, LATE)
    assert (await harness.drained(timeout=10)).complete
    assert await harness.states() == {"unavailable": 3}
    assert harness.simulator.report()["api"]["by_session"] == dict.fromkeys(ids, 1)


async def test_a_drain_makes_some_beside_its_other_work(harness: WorkerHarness) -> None:
    await unavailable(harness, 40, LATE)
    await harness.scripted(64)
    assert (await harness.drained(harness.settings(worker={"concurrency": 16}))).complete
    states = await harness.states()
    made = 40 - states["unavailable"]
    assert states["archived"] == 64 + made
    assert 1 <= made <= 20, "one of the sixteen at the beginning; about one in eight from then on"


async def test_a_drain_that_is_to_makes_those_that_are_due_and_no_others(harness: WorkerHarness) -> None:
    ids = await unavailable(harness, 40, LATE)
    await harness.rows("UPDATE archive_queue SET recheck_at = now() + interval '1 hour' WHERE session_id = $1", ids[0])
    harness.simulator.script({"session_id": ids[1], "answers": [NONE]})
    await harness.scripted(5)
    assert (await harness.drained(_short(harness), night=True, max_wait=timedelta(0), timeout=30)).complete
    assert await harness.states() == {"unavailable": 2, "archived": 43}
    calls = harness.simulator.report()["api"]["by_session"]
    assert (calls[ids[0]], calls[ids[1]], calls[ids[2]]) == (1, 2, 2)
    await harness.assert_accounted_for()


def _short(harness: WorkerHarness) -> Settings:
    """With a schedule whose next time comes while the drain still runs: it isn't waited for."""
    return harness.settings(retry={"recheck_unavailable": ["1ms", "2ms", "7d"]}, worker={"concurrency": 4})


async def test_a_drain_that_is_to_make_rechecks_leaves_a_paused_bot_alone(harness: WorkerHarness) -> None:
    await unavailable(harness, 2, LATE)
    await harness.rows("UPDATE archive_bots SET paused_at = now()")
    assert (await harness.drained(night=True, timeout=10)).complete
    assert await harness.states() == {"unavailable": 2}


async def test_two_drains_make_each_recheck_once(harness: WorkerHarness) -> None:
    ids = await unavailable(harness, 40, LATE)
    async with harness.shift(drain=True, night=True) as first, harness.shift(drain=True, night=True) as second:
        assert (await first.ended()).complete
        assert (await second.ended()).complete
        assert await harness.states() == {"archived": 40}
    assert harness.simulator.report()["api"]["by_session"] == dict.fromkeys(ids, 2)
    await harness.assert_accounted_for()


async def test_an_archived_session_that_is_retried_brings_what_is_new_and_keeps_its_standing(harness: WorkerHarness) -> None:
    one, gone = await harness.scripted(2)
    await harness.drained()
    before = harness.files()
    more = [
        {"file_name": "first.wav", "audio": {"bytes": 3000, "seed": 77}},
        {"file_name": "a.wav", "audio": {"bytes": 2000, "seed": 0}},
    ]
    harness.simulator.script({"session_id": one, "recordings": more})
    harness.simulator.script({"session_id": gone, "answers": [NONE]})
    await harness.rows(
        """UPDATE archive_queue SET state = 'pending', finished_at = NULL, archived_before = true, epoch = epoch + 1
        WHERE state = 'archived'"""
    )
    assert (await harness.drained()).complete
    sessions = await harness.sessions()
    assert {(row["state"], row["reason"]) for row in sessions.values()} == {("archived", None), ("archived", "kept")}
    assert sessions[gone]["detail"]["reason"] == "media_unavailable"
    after = harness.files()
    assert before.items() <= after.items()
    assert [key.rpartition("/")[2] for key in after.keys() - before.keys()] == ["first.wav"]
