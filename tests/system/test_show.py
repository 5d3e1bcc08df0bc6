"""`show`: a session's whole history, and how much of it is kept."""

from __future__ import annotations

import signal
from datetime import datetime
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program


async def test_show_tells_a_sessions_whole_history_in_time_order(archiver: Program, simulator: Simulator) -> None:
    simulator.script({
        "session_id": "s1",
        "answers": [{"status": "call_in_progress"}, {"status": "media_in_progress"}, {"status": "success"}],
        "recordings": [{"file_name": "a.wav"}, {"file_name": "b.wav"}],
    })  # fmt: skip
    await archiver("enqueue", "s1")
    assert (await archiver("worker", "--drain")).code == 0

    document = (await archiver("show", "s1", "--json")).document

    assert document.keys() >= {"session_id", "bot", "kind", "state", "reason", "recordings", "events"}
    assert [document[key] for key in ("session_id", "bot", "kind", "state", "reason")] == [
        "s1",
        "bot",
        "recording",
        "archived",
        None,
    ]
    assert [recording["file_name"] for recording in document["recordings"]] == ["a.wav", "b.wav"]
    assert [recording["sha256"] for recording in document["recordings"]] == simulator.sha256_of("s1")
    assert [event["at"] for event in document["events"]] == sorted(event["at"] for event in document["events"])
    names = [event["event"] for event in document["events"]]
    assert (names[0], names[-1]) == ("enqueued", "archived")
    assert [name for name in names if name in ("claimed", "not_ready")] == ["claimed", "not_ready"] * 2 + ["claimed"]
    told = (await archiver("show", "s1")).stdout
    assert "s1 (bot, recording) is archived" in told
    assert all(recording["store_key"] in told and recording["sha256"] in told for recording in document["recordings"])
    assert "call_in_progress" in told


async def test_show_refuses_an_unknown_and_an_ambiguous_id(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id, kind) VALUES "
                      "('bot', 's1', 'recording'), ('bot', 's1', 'voicemail'), ('stranger', 's2', 'recording')")  # fmt: skip
    (await archiver("show", "nobody")).refused(1, 'no session "nobody" was ever enqueued')
    (await archiver("show", "s1", "--json")).refused(2, "2 sessions have the ID s1: bot/recording, bot/voicemail", "--kind")
    (await archiver("show", "s1", "--bot", "nobody")).refused(2, 'unknown bot "nobody"')
    (await archiver("show", b"\xff")).refused(2, "must be UTF-8")
    assert (await archiver("show", "s1", "--kind", "voicemail", "--json")).document["kind"] == "voicemail"
    assert (await archiver("show", "s2", "--bot", "stranger", "--json")).document["bot"] == "stranger"


async def test_an_unavailable_session_tells_when_it_is_asked_for_again(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    await archiver("enqueue", "none")
    assert (await archiver("worker", "--drain")).code == 0
    next_at = await sql.fetchval("SELECT recheck_at FROM archive_sessions")
    document = (await archiver("show", "none", "--json")).document
    assert (datetime.fromisoformat(document["recheck_at"]), document["rechecks"]) == (next_at, 0)
    assert document["first_asked_at"] == document["last_asked_at"]
    assert "recheck_at" in (await archiver("show", "none")).stdout
    status = (await archiver("status", "--json")).document
    waiting = {"waiting": 1, "next_at": next_at.isoformat()}
    assert (status["rechecks"], status["bots"]["bot"]["rechecks"], status["time_left_seconds"]) == (waiting, waiting, 0)
    assert "1 of the unavailable will be asked for again" in (await archiver("status")).stdout


async def test_metadata_of_any_shape_is_shown(archiver: Program, data: dict[str, Any], sql: Any) -> None:
    archiver.configure(data)
    for number, value in enumerate(("null", "[1, 2]", '"x"', "3")):
        await sql.execute("INSERT INTO archive_queue (bot, session_id, metadata) VALUES ('bot', $1, $2)", f"m{number}", value)
        shown = await archiver("show", f"m{number}")
        assert (shown.code, shown.stderr) == (0, "")


@pytest.mark.parametrize("depth", [600, 5000])
async def test_metadata_nested_deeper_than_python_reads_hides_no_session(
    archiver: Program, data: dict[str, Any], sql: Any, depth: int
) -> None:
    archiver.configure(data)
    value = "[" * depth + '"]"' + "]" * depth
    await sql.execute("INSERT INTO archive_queue (bot, session_id, user_id, metadata) VALUES ('bot', 'm', 'user-7', $1)", value)
    for options in ([], ["--json"]):
        shown = await archiver("show", "m", *options)
        assert (shown.code, shown.stderr) == (0, "")
        assert "user-7" in shown.stdout
        assert "(nested too deep)" in shown.stdout


async def test_a_worker_removes_old_history_and_show_says_so(
    archiver: Program, simulator: Simulator, data: dict[str, Any], sql: Any
) -> None:
    for name in ("old", "young"):
        simulator.script({"session_id": name})
    await archiver("enqueue", "old", "young")
    assert (await archiver("worker", "--drain")).code == 0
    await sql.execute("UPDATE archive_queue SET finished_at = now() - interval '3 days' WHERE session_id = 'old'")
    data["database"]["keep_history"] = "2d"
    archiver.configure(data)

    worker = await archiver.start("worker")
    assert (await worker.logged("history_pruned"))["sessions"] == 1
    worker.send(signal.SIGTERM)
    await worker.ended()

    document = (await archiver("show", "old", "--json")).document
    assert (document["state"], document["events"], document["history_removed"]) == ("archived", [], True)
    assert len(document["recordings"]) == 1
    assert "removed, as database.keep_history asks" in (await archiver("show", "old")).stdout
    young = (await archiver("show", "young", "--json")).document
    assert (young["history_removed"], young["events"][0]["event"]) == (False, "enqueued")
    assert "keep_history" not in (await archiver("show", "young")).stdout
    assert (await archiver("verify")).code == 0


@pytest.mark.parametrize("value", ["1h", "0", "forever", "-3d", "730"])
async def test_a_wrong_keep_history_is_refused_with_its_value_and_without_the_urls_password(
    archiver: Program, data: dict[str, Any], value: str
) -> None:
    data["database"] |= {"keep_history": value, "url": "postgresql://u:hunter2-secret@127.0.0.1:1/d"}
    archiver.configure(data)
    result = await archiver("status")
    result.refused(2, f'database.keep_history = "{value}"')
    assert "hunter2" not in result.stderr
