"""What a drain makes of a queue: every session in its right state, every file right, nothing twice."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from archiver.simulator.scenario import demo_scenario
from archiver.worker import loop as worker_module
from tests.worker.conftest import Logged, Plant, cut_connections, session_id


async def test_a_night_of_every_status_and_fault_ends_as_it_should(plant: Plant) -> None:
    scripts = demo_scenario(100, seed=11)
    plant.simulator.script_all([script.to_json() for script in scripts])
    await plant.enqueue(*(script.session_id for script in scripts))
    ended = await plant.drained(plant.settings(worker={"concurrency": 16}), timeout=110)
    sessions = await plant.sessions()
    assert {script.session_id: (script.note, sessions[script.session_id]["state"]) for script in scripts} == {
        script.session_id: (script.note, script.expected) for script in scripts
    }
    failed = sum(script.expected == "failed" for script in scripts)
    assert (ended.failed, ended.left_pending, ended.timed_out, ended.complete) == (failed, [], 0, False)
    assert sum(row["calls"] for row in sessions.values()) == plant.simulator.report()["api"]["calls"]
    assert plant.parts() == []
    await plant.assert_accounted_for()


async def test_an_empty_queue_is_drained_at_once(plant: Plant) -> None:
    ended = await plant.drained(timeout=10)
    assert ended.complete


async def test_two_workers_do_nothing_twice(plant: Plant) -> None:
    ids = await plant.scripted(200)
    async with plant.shift(drain=True) as first, plant.shift(drain=True) as second:
        ends = await asyncio.gather(first.ended(60), second.ended(60))
    assert all(ended.complete for ended in ends)
    assert await plant.states() == {"archived": 200}
    report = plant.simulator.report()
    assert report["api"]["by_session"] == dict.fromkeys(ids, 1)
    assert (report["media"]["requests"], report["media"]["complete"]) == (200, 200)
    assert first.worker.tally.files + second.worker.tally.files == 200
    assert min(first.worker.tally.files, second.worker.tally.files) > 0
    await plant.assert_accounted_for()


async def test_never_more_sessions_at_once_than_configured(plant: Plant) -> None:
    await plant.scripted(12, audio={"bytes": 6000}, faults=[{"kind": "slow", "bytes_per_second": 20_000}])
    most = 0
    async with plant.shift(plant.settings(worker={"concurrency": 3}), drain=True) as shift:
        while not shift.run.done():
            most = max(most, len(shift.worker.tally.transfers.running))
            await asyncio.sleep(0.01)
    assert most == 3
    assert await plant.states() == {"archived": 12}


async def test_waiting_is_not_failing(plant: Plant) -> None:
    one = session_id(1)
    answers = [{"status": "call_in_progress", "times": 3}, {"status": "media_in_progress", "times": 2}, {"status": "success"}]
    plant.simulator.script({"session_id": one, "answers": answers})
    await plant.enqueue(one)
    assert (await plant.drained()).complete
    row = (await plant.sessions())[one]
    assert (row["state"], row["checks"], row["failures"], row["crashes"], row["calls"]) == ("archived", 5, 0, 0, 6)
    assert (await plant.events(one)).count("not_ready") == 5


async def test_a_session_that_always_fails_ends_after_its_attempts(plant: Plant) -> None:
    one, other = await plant.scripted(2)
    plant.simulator.script({"session_id": one, "answers": [{"raw": "?"}]})
    ended = await plant.drained()
    row = (await plant.sessions())[one]
    assert (ended.failed, ended.complete) == (1, False)
    assert (row["state"], row["reason"], row["failures"]) == ("failed", "api_answer_invalid", 3)
    assert (await plant.sessions())[other]["state"] == "archived"


async def test_what_is_due_is_done_however_long_it_takes_with_a_bound_on_waiting(plant: Plant) -> None:
    """Only the wait for what falls due later is bounded; the pauses that a budget makes between calls are not."""
    await plant.scripted(8)
    settings = plant.settings(bot={"rate_limits": ["4/second"]})
    async with plant.shift(settings, drain=True, max_wait=timedelta(milliseconds=100)) as shift:
        ended = await shift.ended()
    assert ended.complete
    assert await plant.states() == {"archived": 8}


async def test_a_partial_session_keeps_what_was_stored(plant: Plant) -> None:
    one = session_id(1)
    recordings = [{"file_name": "a.wav"}, {"file_name": "b.wav", "faults": [{"kind": "page", "times": None}]}]
    plant.simulator.script({"session_id": one, "recordings": recordings})
    await plant.enqueue(one)
    assert (await plant.drained()).failed == 1
    row = (await plant.sessions())[one]
    assert (row["state"], row["reason"], row["detail"]["reason"]) == ("failed", "partial", "recording_is_page")
    assert [key for key in plant.files() if key.startswith("quarantine/")] == [row["detail"]["quarantined"]]
    await plant.assert_accounted_for()


async def test_voicemail_is_archived_beside_the_recording_of_its_session(plant: Plant) -> None:
    one = session_id(1)
    said = [{"components": [{"cT": "text", "data": {"text": "ring me"}}]}]
    plant.simulator.script({"session_id": one, "voicemail": True, "transcriptions": said})
    await plant.enqueue(one, kind="voicemail")
    assert (await plant.drained()).complete
    rows = await plant.rows("SELECT * FROM archived_recordings ORDER BY ordinal")
    assert [(row["kind"], row["ordinal"], row["media_type"]) for row in rows] == [
        ("voicemail", 0, "application/json"),
        ("voicemail", 1, "audio/wav"),
    ]
    assert json.loads(plant.files()[rows[0]["store_key"]]) == said
    (row,) = await plant.rows("SELECT state, files FROM archive_sessions")
    assert (row["state"], row["files"]) == ("archived", 1)


async def test_a_drain_waits_no_longer_than_it_may(plant: Plant) -> None:
    one = session_id(1)
    plant.simulator.script({"session_id": one, "answers": [{"status": "call_in_progress"}]})
    await plant.enqueue(one)
    settings = plant.settings(retry={"not_ready_delays": ["1h"]})
    ended = await plant.drained(settings, max_wait=timedelta(seconds=30), timeout=10)
    assert (ended.timed_out, ended.complete) == (1, False)
    assert (await plant.sessions())[one]["state"] == "pending"


@pytest.mark.parametrize("night", [False, True])
async def test_a_drain_waits_by_default_for_what_falls_due_before_a_recording_is_given_up(plant: Plant, night: bool) -> None:
    """A producer may have put a session off for years: that must not make every night endless."""
    soon, later, never = await plant.scripted(3)
    await plant.rows("UPDATE archive_queue SET run_at = now() + interval '0.5 s' WHERE session_id = $1", soon)
    await plant.rows("UPDATE archive_queue SET run_at = now() + interval '2 h' WHERE session_id = $1", later)
    await plant.rows("UPDATE archive_queue SET run_at = '9000-01-01Z' WHERE session_id = $1", never)
    ended = await plant.drained(plant.settings(retry={"not_ready_give_up": "1h"}), night=night, timeout=30)
    assert (ended.timed_out, ended.failed, ended.complete) == (2, 0, False)
    assert ended.next_due_in is not None
    assert timedelta(hours=1) < ended.next_due_in < timedelta(hours=2)
    sessions = await plant.sessions()
    assert [sessions[one]["state"] for one in (soon, later, never)] == ["archived", "pending", "pending"]


async def test_rows_of_an_unknown_bot_are_left_pending(plant: Plant) -> None:
    await plant.scripted(3)
    await plant.rows("INSERT INTO archive_queue (bot, session_id) VALUES ('nobody', 's-1'), ('nobody', 's-2')")
    async with plant.shift(plant.settings(worker={"lease_seconds": 1}), drain=True) as shift:
        ended = await shift.ended()
    assert ended.left_pending == [{"bot": "nobody", "kind": "recording", "sessions": 2, "because": "unknown_bot"}]
    assert not ended.complete
    assert await plant.states() == {"archived": 3, "pending": 2}


async def test_an_unknown_bot_is_warned_of_once(plant: Plant, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "UPKEEP_SECONDS", 0.05)
    await plant.rows("INSERT INTO archive_queue (bot, session_id) VALUES ('nobody', 's-1')")
    async with plant.shift() as shift:
        await logged.until("unknown_bot")
        # The upkeep goes round at least once more: it rescues before it looks for unknown bots.
        await plant.rows("INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('h', 1, 'v', now())")
        await plant.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_workers WHERE host = 'h')")
        await plant.rows("INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('h', 1, 'v', now())")
        await plant.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_workers WHERE host = 'h')")
        await shift.stopped()
    (entry,) = logged.named("unknown_bot")
    assert (entry["bot"], entry["sessions"], entry["log_level"]) == ("nobody", 1, "warning")


async def test_connections_that_are_cut_again_and_again_lose_nothing(plant: Plant) -> None:
    ids = await plant.scripted(80, faults=[{"kind": "slow", "bytes_per_second": 20_000}])
    cuts = 0
    async with plant.shift(drain=True) as shift:
        await plant.downloading(1)
        while not shift.run.done() and cuts < 12:
            cuts += 1
            await cut_connections(plant.database_url)
            await asyncio.wait([shift.run], timeout=0.25)
        ended = await shift.ended(60)
    assert cuts > 2
    assert ended.complete
    assert await plant.states() == {"archived": 80}
    sessions = await plant.sessions()
    assert {row["failures"] for row in sessions.values()} == {0}
    assert {row["crashes"] for row in sessions.values()} == {0}
    assert sorted(sessions) == sorted(ids)
    await plant.assert_accounted_for()


async def test_an_outcome_that_the_database_refuses_does_not_hold_the_others_up(plant: Plant) -> None:
    """Whatever the reason: the session fails by itself, and the drain comes to its end."""
    poison, *_ = await plant.scripted(5)
    plant.simulator.script({"session_id": poison, "recordings": [{"file_name": "poison.wav"}]})
    await plant.rows("ALTER TABLE archived_recordings ADD CHECK (file_name <> 'poison.wav')")
    ended = await plant.drained(plant.settings(retry={"max_attempts": 1}))
    assert ended.failed == 1
    assert (await plant.sessions())[poison]["reason"] == "internal_error"
    assert await plant.states() == {"archived": 4, "failed": 1}


async def test_a_second_run_over_files_that_were_never_recorded_meets_them(plant: Plant) -> None:
    ids = await plant.scripted(6)
    await plant.drained()
    before = plant.files()
    await plant.rows("DELETE FROM archived_recordings")
    await plant.rows("UPDATE archive_queue SET state = 'pending', finished_at = NULL, reason = NULL")
    assert (await plant.drained()).complete
    assert plant.files() == before
    recorded = await plant.rows("SELECT session_id FROM archived_recordings ORDER BY session_id")
    assert [row["session_id"] for row in recorded] == ids
    await plant.assert_accounted_for()
