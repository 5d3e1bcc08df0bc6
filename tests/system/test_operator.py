from __future__ import annotations

import os
import pwd
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program

STATES = {"pending", "claimed", "archived", "unavailable", "failed", "cancelled"}
FORGED = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "PGUSER"), "somebody.else")
ESCAPE = "\x1b[31m\x9b2J\u202e[bold]:bug:"


async def archived(archiver: Program, simulator: Simulator, *ids: str) -> None:
    """Archive some plain sessions."""
    for session_id in ids:
        simulator.script({"session_id": session_id})
    assert (await archiver("enqueue", *ids)).code == 0
    assert (await archiver("worker", "--drain")).code == 0


async def test_verify_names_what_is_no_file_and_waits_for_none(archiver: Program, simulator: Simulator) -> None:
    names = ["device", "fifo", "folder", "link", "well"]
    await archived(archiver, simulator, *names)
    root = archiver.folder / "store"
    files = {path.parents[1].name: path for path in root.rglob("*.wav")}
    copy = archiver.folder / "copy.wav"
    copy.write_bytes(files["link"].read_bytes())
    for name in ("fifo", "link", "device"):
        files[name].unlink()
    os.mkfifo(files["fifo"])
    files["link"].symlink_to(copy)
    files["device"].symlink_to("/dev/zero")
    files["folder"].parents[1].rename(archiver.folder / "elsewhere")
    files["folder"].parents[1].symlink_to(archiver.folder / "elsewhere")

    verified = await archiver("verify", "--json")

    assert (verified.code, verified.document["files"], verified.document["equal"]) == (3, 5, 1)
    found = {one["session_id"]: one for one in verified.document["findings"]}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "device": "not_a_regular_file", "fifo": "not_a_regular_file", "link": "not_a_regular_file", "folder": "unreadable",
    }  # fmt: skip
    assert "is a FIFO, not a regular file" in found["fifo"]["message"]
    assert "/folder is a symbolic link" in found["folder"]["message"]
    told = await archiver("verify")
    assert told.code == 3
    assert f"not_a_regular_file: {files['fifo'].relative_to(root)}" in told.stdout


async def test_status_counts_all_six_states_for_the_whole_and_for_every_bot(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    empty = (await archiver("status", "--json")).document
    assert empty["sessions"] == dict.fromkeys(STATES, 0)
    assert empty["bots"]["bot"]["sessions"] == dict.fromkeys(STATES, 0)

    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    await archived(archiver, simulator, "a", "b", "none")
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('stranger', 'x'), ('bot', 'not an id')")
    document = (await archiver("status", "--json")).document

    nothing = dict.fromkeys(STATES, 0)
    assert document["sessions"] == nothing | {"archived": 3, "failed": 1, "pending": 1}
    assert document["bots"]["bot"]["sessions"] == nothing | {"archived": 3, "failed": 1}
    assert document["bots"]["stranger"]["sessions"] == nothing | {"pending": 1}
    assert (document["recordings"], document["api_calls"]) == (3, 3)
    assert {"state": "failed", "reason": "invalid_session_id", "sessions": 1} in document["reasons"]
    told = (await archiver("status")).stdout
    assert "invalid_session_id" in told
    assert "stranger" in told


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
    (await archiver("show", "nobody")).refused(1, "no session 'nobody' was ever enqueued")
    (await archiver("show", "s1", "--json")).refused(2, "2 sessions have the ID s1: bot/recording, bot/voicemail", "--kind")
    (await archiver("show", "s1", "--bot", "nobody")).refused(2, "unknown bot 'nobody'")
    (await archiver("show", b"\xff")).refused(2, "not UTF-8")
    assert (await archiver("show", "s1", "--kind", "voicemail", "--json")).document["kind"] == "voicemail"
    assert (await archiver("show", "s2", "--bot", "stranger", "--json")).document["bot"] == "stranger"


async def test_a_row_of_others_forges_no_line_of_an_error(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's1'), (E'b\nerror: forged', 's1')")
    result = await archiver("show", "s1")
    result.refused(2, r"b\nerror: forged/recording, bot/recording", "--kind")
    assert len(result.stderr.splitlines()) == 2


async def test_cancel_and_retry_keep_who_and_why(archiver: Program, simulator: Simulator) -> None:
    await archiver("enqueue", "a", "b", "c")
    (await archiver("cancel", "--reason", "x")).refused(2, "no session named", "--all")
    (await archiver("cancel", "a")).refused(2, "--reason")
    (await archiver("cancel", "a", "--reason", "  ")).refused(2, "--reason")
    (await archiver("cancel", "a", "--all", "--reason", "x")).refused(2, "exclude each other")
    (await archiver("cancel", "a", "--reason", b"\xff")).refused(2, "--reason", "not UTF-8")

    cancelled = await archiver("cancel", "a", "n[o]pe", "--reason", "legal [hold]", environment=FORGED)
    assert (cancelled.code, cancelled.stdout) == (0, "1 cancelled\n")
    assert cancelled.stderr == "not cancelled: n[o]pe (unknown, ended already, or not chosen)\n"
    document = (await archiver("show", "a", "--json")).document
    last = document["events"][-1]
    assert (document["state"], last["event"]) == ("cancelled", "cancelled")
    who = f"{pwd.getpwuid(os.geteuid()).pw_name}@{socket.gethostname()}"
    assert last["actor"] == who, "the account, whatever the environment says"
    assert "legal [hold]" in str(last["data"])
    assert "legal [hold]" in (await archiver("show", "a")).stdout

    assert (await archiver("cancel", "--all", "--reason", "x", "--json")).document["cancelled"] == 2
    retried = await archiver("retry", "a", "x", "--json")
    assert retried.document == {"retried": 1, "session_ids": ["a"]}
    assert (await archiver("retry", "x")).stderr == "not brought back: x (unknown, not ended, never valid, or not chosen)\n"
    last = (await archiver("show", "a", "--json")).document["events"][-1]
    assert (last["event"], last["actor"], last["data"]["was"]) == ("retried", who, "cancelled")
    await archived(archiver, simulator, "a")


async def test_retry_brings_back_what_failed_for_a_reason(archiver: Program, simulator: Simulator) -> None:
    simulator.script({"session_id": "failed", "answers": [{"status": "failed"}]})
    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    await archiver("enqueue", "failed", "none")
    assert (await archiver("worker", "--drain")).code == 3
    assert (await archiver("retry", "--reason", "something_else")).stdout == "0 brought back\n"
    assert (await archiver("retry", "--reason", "platform_failed", "--json")).document["session_ids"] == ["failed"]
    simulator.script({"session_id": "failed"})
    assert (await archiver("worker", "--drain")).code == 0
    sessions = (await archiver("status", "--json")).document["sessions"]
    assert sessions == dict.fromkeys(STATES, 0) | {"archived": 1, "unavailable": 1}


async def test_retry_of_archived_sessions_takes_what_is_new_and_loses_nothing(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    await archived(archiver, simulator, "more", "gone", "other")
    old = {row["store_key"]: row["sha256"] for row in await sql.fetch("SELECT * FROM archived_recordings")}
    (await archiver("retry", "--state", "unavailable")).refused(2, "--state")
    assert (await archiver("retry", "--json")).document == {"retried": 0, "session_ids": []}
    assert (await archiver("retry", "more", "--json")).document == {"retried": 0, "session_ids": []}
    assert (await archiver("retry", "--state", "archived", "--dry-run", "--json")).document["would_retry"] == 3
    assert (await archiver("retry", "--state", "archived", "other", "--json")).document["retried"] == 1
    assert (await archiver("cancel", "other", "--reason", "a slip")).stdout == "1 cancelled\n"
    assert (await archiver("retry", "--state", "archived", "more", "gone", "--json")).document["retried"] == 2
    name = await sql.fetchval("SELECT source_name FROM archived_recordings WHERE session_id = 'more'")
    simulator.script({"session_id": "more", "recordings": [{"file_name": "late.wav"}, {"file_name": name}]})
    simulator.script({"session_id": "gone", "answers": [{"status": "media_unavailable"}]})

    assert (await archiver("worker", "--drain")).code == 0

    shown = {one: (await archiver("show", one, "--json")).document for one in ("more", "gone", "other")}
    assert {one: (document["state"], document["reason"]) for one, document in shown.items()} == {
        "more": ("archived", None), "gone": ("archived", "kept"), "other": ("archived", "kept")
    }  # fmt: skip
    assert sorted(row["file_name"] for row in shown["more"]["recordings"]) == sorted(["late.wav", name])
    assert shown["gone"]["detail"]["reason"] == "media_unavailable"
    assert [event["event"] for event in shown["gone"]["events"]][-4:] == ["retried", "claimed", "asked", "archived"]
    assert shown["other"]["detail"]["reason"] == "a slip"
    assert "gone (bot, recording) is archived: kept" in (await archiver("show", "gone")).stdout
    new = {row["store_key"]: row["sha256"] for row in await sql.fetch("SELECT * FROM archived_recordings")}
    assert old.items() <= new.items()
    assert len(new) == 4
    assert (await archiver("verify", "--json")).document["equal"] == 4


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


async def test_verify_names_every_file_that_is_not_what_was_recorded(archiver: Program, simulator: Simulator, sql: Any) -> None:
    ids = ["deleted", "cut", "altered", "swapped1", "swapped2", "whole"]
    await archived(archiver, simulator, *ids)
    rows = await sql.fetch("SELECT session_id, store_key FROM archived_recordings")
    keys = {row["session_id"]: row["store_key"] for row in rows}
    paths = {name: archiver.folder / "store" / key for name, key in keys.items()}
    good = await archiver("verify")
    assert (good.code, good.stdout.startswith("6 of 6 files equal")) == (0, True)

    paths["deleted"].unlink()
    os.truncate(paths["cut"], 100)
    body = bytearray(paths["altered"].read_bytes())
    body[1000] ^= 1
    paths["altered"].write_bytes(body)
    _swap(paths["swapped1"], paths["swapped2"])

    told, document = await archiver("verify"), await archiver("verify", "--json")

    assert told.code == document.code == 3
    assert {finding["store_key"]: finding["verdict"] for finding in document.document["findings"]} == {
        keys[name]: "missing" if name == "deleted" else "changed" for name in ids if name != "whole"
    }
    assert (document.document["files"], document.document["equal"]) == (6, 1)
    lines = told.stdout.splitlines()
    assert all(any(keys[name] in line for line in lines[:-1]) == (name != "whole") for name in ids)
    assert lines[-1].startswith("1 of 6 files equal")


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


async def test_what_other_systems_wrote_reaches_no_terminal_raw(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', $1, $1), ($1, 'x', $1), ($1, 'x', 'y'), "
                      "('bot', 'a:bug:b', 'recording')", ESCAPE)  # fmt: skip
    await sql.execute("UPDATE archive_queue SET metadata = jsonb_build_object($1::text, $1::text), user_id = $1", ESCAPE)

    results = [await archiver(*words) for words in (
        ["status"], ["show", ESCAPE], ["show", "x"], ["show", "a:bug:b"], ["cancel", ESCAPE, "--reason", ESCAPE],
        ["cancel", "a:bug:b", "--reason", ESCAPE], ["show", "a:bug:b"], ["retry", ESCAPE])]  # fmt: skip

    assert [result.code for result in results] == [0, 0, 2, 0, 0, 0, 0, 0]
    for result in results:
        printed = result.stdout + result.stderr
        assert not set(printed) & {"\x1b", "\x9b", "\u202e"}, printed
        assert "Traceback" not in printed
    assert "\\x1b[31m\\x9b2J\\u202e[bold]:bug:" in results[1].stdout
    assert "a:bug:b (bot, recording)" in results[3].stdout
    documents = [(await archiver(*words, "--json")).document for words in (["status"], ["show", ESCAPE])]
    assert ESCAPE in documents[0]["bots"]
    assert documents[1]["session_id"] == ESCAPE


@pytest.mark.parametrize("words", ["status --json", "show s1", "--help"])
async def test_a_reader_that_goes_away_meets_no_traceback(archiver: Program, simulator: Simulator, sql: Any, words: str) -> None:
    await sql.execute("INSERT INTO archive_queue (bot, session_id, metadata) "
                      "SELECT 'bot', 's1', jsonb_object_agg(n, repeat('x', 100)) FROM generate_series(1, 3000) n")  # fmt: skip
    for script in (
        f"archiver {words} | head -1",
        f"archiver {words} | true",
        f"archiver {words} >&-",
        f"archiver {words} 2>&- >/dev/null",
    ):
        result = await archiver.shell(script)
        assert result.stderr == "", (script, result)
        assert result.code in (0, 1)


async def test_a_full_disk_under_the_output_is_told(archiver: Program) -> None:
    for words in ("status", "status --json"):
        result = await archiver.shell(f"archiver {words} > /dev/full")
        result.refused(1, "the output cannot be written: No space left on device")


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


async def test_a_look_with_another_configuration_does_not_change_where_rows_without_a_bot_go(
    archiver: Program, data: dict[str, Any]
) -> None:
    data["database"]["url"] = f"embedded:{archiver.folder / 'pg'}"
    archiver.configure(data)
    worker = await archiver.start("worker")
    await worker.logged("worker_started", timeout=60)
    data["bots"][0]["name"] = "other"
    archiver.configure(data, "other.toml")
    assert (await archiver("status")).code == 0
    service = (archiver.folder / "pg" / "pg_service.conf").read_text()
    facts = dict(line.split("=", 1) for line in service.splitlines() if "=" in line)
    connection = await asyncpg.connect(
        host=facts["host"], port=int(facts["port"]), user=facts["user"], password=facts["password"], database=facts["dbname"]
    )
    try:
        await connection.execute("INSERT INTO archive_queue (session_id) VALUES ('s1')")
        assert await connection.fetchval("SELECT bot FROM archive_queue") == "bot"
    finally:
        await connection.close()
