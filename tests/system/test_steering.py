"""Watching a fleet and steering it: what operators type while workers run."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from archiver.account.status import pause_after
from archiver.cli.status import lasting
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, Running, eventually

ESCAPE = "\x1b[31m\x9b2J\u202e[bold]:bug:"


async def lines_of(running: Running, count: int) -> list[str]:
    """The first lines of its standard output, once there are so many."""

    async def look() -> list[str]:
        lines = running.stdout.splitlines()
        return lines if len(lines) >= count else []

    return await eventually(look)


async def fail(sql: Any, *ids: str, reason: str, finished_at: str, bot: str = "bot", kind: str = "recording") -> None:
    """Sessions that failed at that moment."""
    for session_id in ids:
        await sql.execute("INSERT INTO archive_queue (bot, session_id, kind) VALUES ($1, $2, $3)", bot, session_id, kind)
    await sql.execute(
        "INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('gone', 1, '0', now() + interval '1 h')"
    )
    await sql.execute(
        "UPDATE archive_queue SET state = 'claimed', worker_id = 1, epoch = 1, claimed_at = now() WHERE session_id = ANY ($1)",
        ids,
    )
    await sql.execute(
        "UPDATE archive_queue SET state = 'failed', worker_id = NULL, reason = $2, finished_at = $3::text::timestamptz "
        "WHERE session_id = ANY ($1)", ids, reason, finished_at)  # fmt: skip


# --- status


async def test_status_tells_the_pace_and_the_time_left(archiver: Program, simulator: Simulator, data: dict[str, Any]) -> None:
    data["bots"][0]["rate_limits"] = ["60000/minute", "1000000/day"]
    archiver.configure(data)
    empty = (await archiver("status", "--json")).document
    nothing = {"archived": 0, "unavailable": 0, "failed": 0}
    assert empty["rates"] == {"minute": nothing, "ten_minutes": nothing, "api_calls_minute": 0}
    assert (empty["time_left_seconds"], empty["time_left_without"]) == (0, [])
    simulator.script({"session_id": "none", "answers": [{"status": "media_unavailable"}]})
    simulator.script({"session_id": "bad", "answers": [{"status": "failed"}]})
    simulator.script({"session_id": "good"})
    await archiver("enqueue", "none", "bad", "good")
    assert (await archiver("worker", "--drain")).code == 3

    document = (await archiver("status", "--json")).document

    for told in (document, document["bots"]["bot"]):
        assert told["rates"]["minute"] == told["rates"]["ten_minutes"] == {"archived": 1, "unavailable": 1, "failed": 1}
        assert told["rates"]["api_calls_minute"] == 3
        assert told["time_left_seconds"] == 0
    human = (await archiver("status")).stdout
    assert "1 / 1 / 1" in human
    await archiver("enqueue", "later")
    assert (await archiver("status", "--json")).document["time_left_seconds"] is None, "nobody works"
    assert "unknown" in (await archiver("status")).stdout


async def test_what_is_paused_is_not_counted_in_the_time_left_and_who_did_it_is_kept(archiver: Program, sql: Any) -> None:
    await archiver("enqueue", "a", "b")
    assert (await archiver("pause", "--bot", "bot")).code == 0
    assert (await archiver("pause")).code == 0, "again: nothing changes"
    document = (await archiver("status", "--json")).document
    assert document["time_left_without"] == [{"bot": "bot", "kind": "recording", "sessions": 2, "because": "paused"}]
    assert document["time_left_seconds"] is None
    assert document["paused"] == ["bot"]
    who = document["pauses"][0]["by"]
    assert "@" in who
    human = (await archiver("status")).stdout
    assert "not counted in it: 2 of bot (recording): paused" in human
    assert f"by {who} (`archiver resume --bot bot`)" in human
    await sql.execute("INSERT INTO archive_holds (bot, kind, reason, probe_at) VALUES ('bot', 'voicemail', 'x', now())")

    assert (await archiver("resume")).stdout == "resumed: bot, 1 hold(s) released\n"
    await archiver("resume")

    paused, resumed = (await archiver("status", "--json")).document["bot_events"]
    assert (paused["bot"], paused["event"], paused["actor"]) == ("bot", "paused", who)
    assert (resumed["bot"], resumed["event"], resumed["actor"]) == ("bot", "resumed", who)
    assert (resumed["data"]["paused_by"], resumed["data"]["holds"]) == (who, {"voicemail": "x"})


async def test_a_watch_prints_a_line_a_look_and_ends_with_ctrl_c(archiver: Program) -> None:
    await archiver("enqueue", "a")
    watch = await archiver.start("status", "--watch", "--every", "100ms")
    assert "pending 1, claimed 0" in (await lines_of(watch, 1))[0]
    await archiver("enqueue", "b")

    async def seen() -> bool:
        return "pending 2" in watch.stdout

    await eventually(seen)
    watch.send(signal.SIGINT)
    result = await watch.ended()
    assert (result.code, result.stderr.strip()) == (130, "")
    assert all(" pending " in line and "time left unknown; workers 0" in line for line in result.stdout.splitlines())


async def test_a_watch_for_programs_prints_a_document_a_line_and_ends_with_sigterm(archiver: Program) -> None:
    watch = await archiver.start("status", "--watch", "--every", "100ms", "--json")
    lines = await lines_of(watch, 3)
    watch.send(signal.SIGTERM)
    result = await watch.ended()
    assert (result.code, result.stderr) == (143, "")
    documents = [json.loads(line) for line in lines[:3]]
    assert [document["at"] for document in documents] == sorted({document["at"] for document in documents})
    assert all(len(document["sessions"]) == 6 for document in documents)


async def test_a_watch_redraws_a_terminal(archiver: Program) -> None:
    await archiver("enqueue", "a")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *archiver.command, "--config", str(archiver.config), "status", "--watch", "--every", "100ms", cwd=archiver.folder,
        env={**archiver.environment, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"}, start_new_session=True,
        stdin=asyncio.subprocess.DEVNULL, stdout=theirs, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    drawn = bytearray()

    async def redrawn() -> bool:
        with suppress(OSError):  # nothing yet, or nothing more
            drawn.extend(os.read(ours, 65536))
        return drawn.count(b"time left") >= 2 and drawn.count(b"\x1b[2K") > 2  # lines erased to be drawn again

    try:
        await eventually(redrawn)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            _, stderr = await process.communicate()
        with suppress(OSError):  # nothing more
            while more := os.read(ours, 65536):
                drawn.extend(more)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)
    assert (process.returncode, stderr.strip()) == (130, b"")
    assert drawn.rfind(b"\x1b[?25h") > drawn.rfind(b"\x1b[?25l"), "the cursor is shown again"


async def test_a_watch_whose_reader_goes_away_ends_without_a_word(archiver: Program) -> None:
    result = await archiver.shell("archiver status --watch --every 100ms | head -1")
    assert result.stderr == ""
    assert result.code in (0, 1)
    assert len(result.stdout.splitlines()) == 1


async def test_a_wrong_watch_is_refused(archiver: Program) -> None:
    (await archiver("status", "--every", "5s")).refused(2, "--every goes with --watch")
    (await archiver("status", "--watch", "--every", "soon")).refused(2, "--every", "'soon'", "a duration is a number and a unit")
    (await archiver("status", "--watch", "--every", "0")).refused(2, "--every", "at least 100ms")


async def test_a_watch_ends_when_its_database_is_gone(archiver: Program, sql: Any) -> None:
    watch = await archiver.start("status", "--watch", "--every", "100ms")
    await lines_of(watch, 1)
    await sql.execute("DROP VIEW archive_sessions; DROP TABLE archive_queue CASCADE")
    result = await watch.ended()
    assert result.code == 1
    assert "archiver migrate" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("took", "every", "pause"), [(0.01, 2, 2), (3, 2, 30), (0.2, 2, 2), (0.3, 2, 3)])
def test_the_pause_of_a_watch_is_ten_times_what_a_look_took(took: float, every: float, pause: float) -> None:
    assert pause_after(took, timedelta(seconds=every)) == pytest.approx(pause)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "unknown"),
        (0, "0s"),
        (99, "99s"),
        (100, "2m"),
        (3599, "1h 00m"),
        (3600 * 3 + 300, "3h 05m"),
        (86400 * 12, "12d 0h"),
    ],
)
def test_a_time_left_is_told_for_people(seconds: float | None, told: str) -> None:
    assert lasting(seconds) == told


# --- workers


async def test_workers_tells_who_is_alive_and_what_each_holds(archiver: Program, simulator: Simulator, sql: Any) -> None:
    assert (await archiver("workers")).stdout == "no worker is at work\n"
    assert (await archiver("workers", "--json")).document == {"workers": []}
    simulator.script({"session_id": "slow", "recordings": [{"faults": [{"kind": "stall"}]}]})
    await archiver("enqueue", "slow")
    worker = await archiver.start("worker")
    started = await worker.logged("worker_started")

    async def holds() -> Any:
        found = (await archiver("workers", "--json")).document["workers"]
        return found if found and found[0]["claimed"] else None

    (found,) = await eventually(holds)

    assert (found["id"], found["pid"], found["alive"]) == (started["worker"], worker.process.pid, True)
    assert found["started_at"] <= found["renewed_at"] < found["lease_until"]
    (held,) = found["sessions"]
    assert (held["bot"], held["session_id"], held["kind"]) == ("bot", "slow", "recording")
    assert held["since"] >= found["started_at"]
    told = (await archiver("workers")).stdout
    assert "alive" in told
    assert "slow (bot, recording) since" in told

    worker.send(signal.SIGKILL)
    await worker.ended()
    await sql.execute("UPDATE archive_workers SET expires_at = now() - interval '1 second'")
    (dead,) = (await archiver("workers", "--json")).document["workers"]
    assert (dead["alive"], dead["claimed"]) == (False, 1)
    result = await archiver("workers")
    assert result.code == 0
    assert "DEAD, its sessions are about to be taken over" in result.stdout
    assert "DEAD" in (await archiver("status")).stdout

    await sql.execute("DELETE FROM archive_workers")
    (lost,) = (await archiver("workers", "--json")).document["workers"]
    assert (lost["id"], lost["host"], lost["alive"], lost["claimed"]) == (found["id"], None, False, 1)
    assert "slow" in (await archiver("workers")).stdout
    assert "off the list" in (await archiver("status")).stdout


async def test_what_a_worker_or_a_row_calls_itself_reaches_no_terminal_raw(archiver: Program, sql: Any) -> None:
    await sql.execute(
        "INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ($1, 1, $1, now() + interval '1 h')", ESCAPE
    )
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ($1, 'a')", ESCAPE)
    await sql.execute(
        "UPDATE archive_queue SET state = 'claimed', worker_id = (SELECT id FROM archive_workers), claimed_at = now()"
    )
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ($1, 'b')", ESCAPE)
    for words in (["workers"], ["status"], ["retry", "--dry-run", "--error", ESCAPE], ["retry", "--since", ESCAPE]):
        result = await archiver(*words)
        printed = result.stdout + result.stderr
        assert result.code == (2 if "--since" in words else 0)
        assert not set(printed) & {"\x1b", "\x9b", "\u202e"}, printed
        assert "Traceback" not in printed
    assert (await archiver("workers", "--json")).document["workers"][0]["sessions"][0]["bot"] == ESCAPE


# --- retry and cancel


async def test_retry_chooses_by_error_kind_bot_and_time(archiver: Program, sql: Any) -> None:
    await fail(sql, "a", reason="api_unreachable", finished_at="2026-03-31T22:30Z")
    await fail(sql, "b", reason="media_unreachable", finished_at="2026-04-01T00:00Z")
    await fail(sql, "c", reason="conflict", finished_at="2026-04-01T00:30Z")
    await fail(sql, "d", reason="api_unreachable", finished_at="2026-04-01T01:00Z", kind="voicemail")
    await fail(sql, "e", reason="api_unreachable", finished_at="2026-04-01T02:00Z", bot="stranger")

    async def chosen(*words: str) -> str:
        result = await archiver("retry", "--dry-run", "--json", *words)
        assert (result.code, result.document["retried"]) == (0, 0), result
        assert result.document["would_retry"] == len(result.document["session_ids"])
        return "".join(result.document["session_ids"])

    assert await chosen() == "abcde"
    assert await chosen("--error", "api_unreachable") == "ade"
    assert await chosen("--reason", "api_unreachable", "--error", "conflict") == "acde"
    assert await chosen("--kind", "voicemail") == "d"
    assert await chosen("--bot", "stranger") == "e"
    assert await chosen("--since", "2026-04-01") == "bcde"
    assert await chosen("--until", "2026-04-01") == "a"
    assert await chosen("--since", "2026-04-01T02:00:00+02:00", "--until", "2026-04-01T01:00") == "bc"
    assert await chosen("--since", "2026-03-31T23:00-02:00") == "de"
    assert await chosen("--since", "2026-04-01", "--error", "api_unreachable", "a", "d") == "d"
    assert (await archiver("retry", "--dry-run")).stdout == "5 would be brought back; nothing was changed\n"
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'failed'") == 5
    assert await sql.fetchval("SELECT count(*) FROM archive_events WHERE event = 'retried'") == 0

    result = await archiver("retry", "--since", "2026-04-01", "--error", "api_unreachable", "--error", "conflict", "a", "c", "d")

    assert (result.code, result.stdout) == (0, "2 brought back\n")
    assert result.stderr == "not brought back: a (unknown, not ended, never valid, or not chosen)\n"
    assert await sql.fetchval("SELECT string_agg(session_id, '' ORDER BY id) FROM archive_queue WHERE state = 'pending'") == "cd"


async def test_cancel_chooses_by_state_error_and_time_of_enqueueing(archiver: Program, sql: Any) -> None:
    await archiver("enqueue", "old", "new", "put-back", "running")
    await sql.execute("UPDATE archive_queue SET enqueued_at = '2026-03-01Z' WHERE session_id = 'old'")
    await sql.execute("UPDATE archive_queue SET reason = 'call_in_progress' WHERE session_id = 'put-back'")
    await sql.execute("UPDATE archive_queue SET state = 'claimed', worker_id = 1 WHERE session_id = 'running'")

    async def chosen(*words: str) -> list[str]:
        result = await archiver("cancel", "--all", "--reason", "x", "--dry-run", "--json", *words)
        assert (result.code, result.document["cancelled"]) == (0, 0), result
        assert result.document["would_cancel"] == len(result.document["session_ids"])
        return sorted(result.document["session_ids"])

    assert await chosen() == ["new", "old", "put-back", "running"]
    assert await chosen("--state", "claimed") == ["running"]
    assert await chosen("--state", "pending", "--since", "2026-03-02") == ["new", "put-back"]
    assert await chosen("--until", "2026-03-01T00:00:01Z") == ["old"]
    assert await chosen("--error", "call_in_progress", "--error", "nonsense") == ["put-back"]
    told = await archiver("cancel", "old", "--reason", "x", "--dry-run")
    assert told.stdout == "1 would be cancelled; nothing was changed\n"
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'cancelled'") == 0

    result = await archiver("cancel", "--all", "--until", "2026-03-02", "--reason", "too old", "--json")
    assert result.document == {"cancelled": 1, "session_ids": ["old"]}


@pytest.mark.parametrize("command", [["retry"], ["cancel", "--all", "--reason", "x"]])
@pytest.mark.parametrize("option", ["--since", "--until"])
async def test_a_time_that_is_none_is_told_with_its_option_and_the_way_to_write_one(
    archiver: Program, command: list[str], option: str
) -> None:
    for value in ("yesterday", "", "2026-02-30", "0001-01-01T00:00+14:00", b"\xff"):
        result = await archiver(*command, option, value)
        result.refused(2, option, "is not an ISO 8601 date or date-time", "2026-03-31T08:00:00+02:00")


async def test_a_span_that_nothing_can_lie_in_is_refused(archiver: Program) -> None:
    result = await archiver("retry", "--since", "2026-04-01", "--until", "2026-04-01")
    result.refused(2, "--until 2026-04-01T00:00:00+00:00 is not after --since", "name the next day")
    (await archiver("cancel", "--all", "--reason", "x", "--since", "2026-04-02", "--until", "2026-04-01")).refused(2, "--until")


async def test_options_that_do_not_exist_are_refused(archiver: Program) -> None:
    (await archiver("retry", "--state", "unavailable")).refused(2, "--state", "'unavailable'", "failed")
    (await archiver("cancel", "a", "--reason", "x", "--state", "failed")).refused(2, "--state", "'failed'", "pending")
    (await archiver("cancel", "--dry-run", "--reason", "x")).refused(2, "no session named", "--all")
    (await archiver("retry", "--dry-run", "--bot", "nobody")).refused(2, "unknown bot 'nobody'")


# --- old history


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
    result.refused(2, f"database.keep_history = {value!r}")
    assert "hunter2" not in result.stderr
