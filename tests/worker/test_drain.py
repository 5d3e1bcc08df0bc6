"""What a drain makes of a queue: every session in its right state, every file right, nothing twice."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from archiver.simulator.scenario import demo_scenario
from archiver.worker import upkeep
from tests.worker.conftest import Logged, WorkerHarness, cut_connections, session_id


async def test_a_night_of_every_status_and_fault_ends_as_it_should(harness: WorkerHarness) -> None:
    scripts = demo_scenario(100, seed=11)
    harness.simulator.script_all([script.to_json() for script in scripts])
    await harness.enqueue(*(script.session_id for script in scripts))
    ended = await harness.drained(harness.settings(worker={"concurrency": 16}), timeout=110)
    sessions = await harness.sessions()
    assert {script.session_id: (script.note, sessions[script.session_id]["state"]) for script in scripts} == {
        script.session_id: (script.note, script.expected) for script in scripts
    }
    failed = sum(script.expected == "failed" for script in scripts)
    assert (ended.failed, ended.left_pending, ended.timed_out, ended.complete) == (failed, [], 0, False)
    assert sum(row["calls"] for row in sessions.values()) == harness.simulator.report()["api"]["calls"]
    assert harness.parts() == []
    await harness.assert_accounted_for()


async def test_an_empty_queue_is_drained_at_once(harness: WorkerHarness) -> None:
    ended = await harness.drained(timeout=10)
    assert ended.complete


async def test_two_workers_do_nothing_twice(harness: WorkerHarness) -> None:
    ids = await harness.scripted(200)
    async with harness.shift(drain=True) as first, harness.shift(drain=True) as second:
        ends = await asyncio.gather(first.ended(60), second.ended(60))
    assert all(ended.complete for ended in ends)
    assert await harness.states() == {"archived": 200}
    report = harness.simulator.report()
    assert report["api"]["by_session"] == dict.fromkeys(ids, 1)
    assert (report["media"]["requests"], report["media"]["complete"]) == (200, 200)
    assert first.worker.tally.files + second.worker.tally.files == 200
    assert min(first.worker.tally.files, second.worker.tally.files) > 0
    await harness.assert_accounted_for()


async def test_never_more_sessions_at_once_than_configured(harness: WorkerHarness) -> None:
    await harness.scripted(12, audio={"bytes": 6000}, faults=[{"kind": "slow", "bytes_per_second": 20_000}])
    most = 0
    async with harness.shift(harness.settings(worker={"concurrency": 3}), drain=True) as shift:
        while not shift.run.done():
            most = max(most, len(shift.worker.tally.transfers.running))
            await asyncio.sleep(0.01)
    assert most == 3
    assert await harness.states() == {"archived": 12}


async def test_waiting_is_not_failing(harness: WorkerHarness) -> None:
    one = session_id(1)
    answers = [{"status": "call_in_progress", "times": 3}, {"status": "media_in_progress", "times": 2}, {"status": "success"}]
    harness.simulator.script({"session_id": one, "answers": answers})
    await harness.enqueue(one)
    assert (await harness.drained()).complete
    row = (await harness.sessions())[one]
    assert (row["state"], row["checks"], row["failures"], row["crashes"], row["calls"]) == ("archived", 5, 0, 0, 6)
    assert (await harness.events(one)).count("not_ready") == 5


async def test_a_session_that_always_fails_ends_after_its_attempts(harness: WorkerHarness) -> None:
    one, other = await harness.scripted(2)
    harness.simulator.script({"session_id": one, "answers": [{"raw": "?"}]})
    ended = await harness.drained()
    row = (await harness.sessions())[one]
    assert (ended.failed, ended.complete) == (1, False)
    assert (row["state"], row["reason"], row["failures"]) == ("failed", "api_answer_invalid", 3)
    assert (await harness.sessions())[other]["state"] == "archived"


async def test_what_is_due_is_done_however_long_it_takes_with_a_bound_on_waiting(harness: WorkerHarness) -> None:
    """Only the wait for what falls due later is bounded; the pauses that a budget makes between calls are not."""
    await harness.scripted(8)
    settings = harness.settings(bot={"rate_limits": ["4/second"]})
    async with harness.shift(settings, drain=True, max_wait=timedelta(milliseconds=100)) as shift:
        ended = await shift.ended()
    assert ended.complete
    assert await harness.states() == {"archived": 8}


async def test_a_partial_session_keeps_what_was_stored(harness: WorkerHarness) -> None:
    one = session_id(1)
    recordings = [{"file_name": "a.wav"}, {"file_name": "b.wav", "faults": [{"kind": "page", "times": None}]}]
    harness.simulator.script({"session_id": one, "recordings": recordings})
    await harness.enqueue(one)
    assert (await harness.drained()).failed == 1
    row = (await harness.sessions())[one]
    assert (row["state"], row["reason"], row["detail"]["reason"]) == ("failed", "partial", "recording_is_page")
    assert [key for key in harness.files() if key.startswith("quarantine/")] == [row["detail"]["quarantined"]]
    await harness.assert_accounted_for()


async def test_voicemail_is_archived_beside_the_recording_of_its_session(harness: WorkerHarness) -> None:
    one = session_id(1)
    said = [{"components": [{"cT": "text", "data": {"text": "ring me"}}]}]
    harness.simulator.script({"session_id": one, "voicemail": True, "transcriptions": said})
    await harness.enqueue(one, kind="voicemail")
    assert (await harness.drained()).complete
    rows = await harness.rows("SELECT * FROM archived_recordings ORDER BY ordinal")
    assert [(row["kind"], row["ordinal"], row["media_type"]) for row in rows] == [
        ("voicemail", 0, "application/json"),
        ("voicemail", 1, "audio/wav"),
    ]
    assert json.loads(harness.files()[rows[0]["store_key"]]) == said
    (row,) = await harness.rows("SELECT state, files FROM archive_sessions")
    assert (row["state"], row["files"]) == ("archived", 1)


async def test_a_drain_waits_no_longer_than_it_may(harness: WorkerHarness) -> None:
    one = session_id(1)
    harness.simulator.script({"session_id": one, "answers": [{"status": "call_in_progress"}]})
    await harness.enqueue(one)
    settings = harness.settings(retry={"not_ready_delays": ["1h"]})
    ended = await harness.drained(settings, max_wait=timedelta(seconds=30), timeout=10)
    assert (ended.timed_out, ended.complete) == (1, False)
    assert (await harness.sessions())[one]["state"] == "pending"


async def test_what_is_in_progress_for_too_long_is_counted_by_the_reason_it_is_given_up_for(
    harness: WorkerHarness, logged: Logged
) -> None:
    one = session_id(1)
    harness.simulator.script({"session_id": one, "answers": [{"status": "call_in_progress"}]})
    await harness.enqueue(one)
    async with harness.shift(harness.settings(retry={"not_ready_give_up": "0s"}), drain=True) as shift:
        assert (await shift.ended()).failed == 1
        assert dict(shift.worker.tally.attempts) == {("bot", "failed", "not_ready"): 1}
    assert logged.named("session_failed")[0]["reason"] == (await harness.sessions())[one]["reason"] == "not_ready"


@pytest.mark.parametrize("night", [False, True])
async def test_a_drain_waits_by_default_for_what_falls_due_before_a_recording_is_given_up(
    harness: WorkerHarness, night: bool
) -> None:
    """A producer may have put a session off for years: that must not make every night endless."""
    soon, later, never = await harness.scripted(3)
    await harness.rows("UPDATE archive_queue SET run_at = now() + interval '0.5 s' WHERE session_id = $1", soon)
    await harness.rows("UPDATE archive_queue SET run_at = now() + interval '2 h' WHERE session_id = $1", later)
    await harness.rows("UPDATE archive_queue SET run_at = '9000-01-01Z' WHERE session_id = $1", never)
    ended = await harness.drained(harness.settings(retry={"not_ready_give_up": "1h"}), night=night, timeout=30)
    assert (ended.timed_out, ended.failed, ended.complete) == (2, 0, False)
    assert ended.next_due_in is not None
    assert timedelta(hours=1) < ended.next_due_in < timedelta(hours=2)
    sessions = await harness.sessions()
    assert [sessions[one]["state"] for one in (soon, later, never)] == ["archived", "pending", "pending"]


async def test_rows_of_an_unknown_bot_are_left_pending(harness: WorkerHarness) -> None:
    await harness.scripted(3)
    await harness.rows("INSERT INTO archive_queue (bot, session_id) VALUES ('nobody', 's-1'), ('nobody', 's-2')")
    async with harness.shift(harness.settings(worker={"lease_seconds": 1}), drain=True) as shift:
        ended = await shift.ended()
    assert ended.left_pending == [{"bot": "nobody", "kind": "recording", "sessions": 2, "because": "unknown_bot"}]
    assert not ended.complete
    assert await harness.states() == {"archived": 3, "pending": 2}


async def test_an_unknown_bot_is_warned_of_once(harness: WorkerHarness, logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "UPKEEP_SECONDS", 0.05)
    await harness.rows("INSERT INTO archive_queue (bot, session_id) VALUES ('nobody', 's-1')")
    async with harness.shift() as shift:
        await logged.until("unknown_bot_found")
        # The upkeep goes round at least once more: it rescues before it looks for unknown bots.
        await harness.rows("INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('h', 1, 'v', now())")
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_workers WHERE host = 'h')")
        await harness.rows("INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('h', 1, 'v', now())")
        await harness.eventually("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_workers WHERE host = 'h')")
        await shift.stopped()
    (entry,) = logged.named("unknown_bot_found")
    assert (entry["bot"], entry["sessions"], entry["log_level"]) == ("nobody", 1, "warning")


async def test_connections_that_are_cut_again_and_again_lose_nothing(harness: WorkerHarness) -> None:
    ids = await harness.scripted(80, faults=[{"kind": "slow", "bytes_per_second": 20_000}])
    cuts = 0
    async with harness.shift(drain=True) as shift:
        await harness.downloading(1)
        while not shift.run.done() and cuts < 12:
            cuts += 1
            await cut_connections(harness.database_url)
            await asyncio.wait([shift.run], timeout=0.25)
        ended = await shift.ended(60)
    assert cuts > 2
    assert ended.complete
    assert await harness.states() == {"archived": 80}
    sessions = await harness.sessions()
    assert {row["failures"] for row in sessions.values()} == {0}
    assert {row["crashes"] for row in sessions.values()} == {0}
    assert sorted(sessions) == sorted(ids)
    await harness.assert_accounted_for()


async def test_an_outcome_that_the_database_refuses_does_not_hold_the_others_up(harness: WorkerHarness) -> None:
    """Whatever the reason: the session fails by itself, and the drain comes to its end."""
    poison, *_ = await harness.scripted(5)
    harness.simulator.script({"session_id": poison, "recordings": [{"file_name": "poison.wav"}]})
    await harness.rows("ALTER TABLE archived_recordings ADD CHECK (file_name <> 'poison.wav')")
    ended = await harness.drained(harness.settings(retry={"max_attempts": 1}))
    assert ended.failed == 1
    assert (await harness.sessions())[poison]["reason"] == "internal_error"
    assert await harness.states() == {"archived": 4, "failed": 1}


async def test_a_second_run_over_files_that_were_never_recorded_meets_them(harness: WorkerHarness) -> None:
    ids = await harness.scripted(6)
    await harness.drained()
    before = harness.files()
    await harness.rows("DELETE FROM archived_recordings")
    await harness.rows("UPDATE archive_queue SET state = 'pending', finished_at = NULL, reason = NULL")
    assert (await harness.drained()).complete
    assert harness.files() == before
    recorded = await harness.rows("SELECT session_id FROM archived_recordings ORDER BY session_id")
    assert [row["session_id"] for row in recorded] == ids
    await harness.assert_accounted_for()
