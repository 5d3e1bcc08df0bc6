"""`retry` and `cancel`: which sessions they choose, and what is kept of who did it and why."""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, archived

STATES = {"pending", "claimed", "archived", "unavailable", "failed", "cancelled"}


FORGED = dict.fromkeys(("LOGNAME", "USER", "LNAME", "USERNAME", "SUDO_USER", "PGUSER"), "somebody.else")


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

    assert await chosen("--all") == "abcde"
    assert await chosen("--error", "api_unreachable") == "ade"
    assert await chosen("--reason", "api_unreachable", "--error", "conflict") == "acde"
    assert await chosen("--kind", "voicemail") == "d"
    assert await chosen("--bot", "stranger") == "e"
    assert await chosen("--since", "2026-04-01") == "bcde"
    assert await chosen("--until", "2026-04-01") == "a"
    assert await chosen("--since", "2026-04-01T02:00:00+02:00", "--until", "2026-04-01T01:00") == "bc"
    assert await chosen("--since", "2026-03-31T23:00-02:00") == "de"
    assert await chosen("--since", "2026-04-01", "--error", "api_unreachable", "a", "d") == "d"
    assert (await archiver("retry", "--all", "--dry-run")).stdout == "5 would be brought back; nothing was changed\n"
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'failed'") == 5
    assert await sql.fetchval("SELECT count(*) FROM archive_history WHERE event = 'retried'") == 0

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


async def test_cancel_and_retry_keep_who_and_why(archiver: Program, simulator: Simulator) -> None:
    await archiver("enqueue", "a", "b", "c")
    (await archiver("cancel", "--reason", "x")).refused(2, "no session named", "--all")
    (await archiver("cancel", "a")).refused(2, "--reason")
    (await archiver("cancel", "a", "--reason", "  ")).refused(2, "--reason")
    (await archiver("cancel", "a", "--all", "--reason", "x")).refused(2, "exclude each other")
    (await archiver("cancel", "a", "--reason", b"\xff")).refused(2, "--reason", "must be UTF-8")

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
    assert (await archiver("retry", "--all", "--json")).document == {"retried": 0, "session_ids": []}
    assert (await archiver("retry", "more", "--json")).document == {"retried": 0, "session_ids": []}
    assert (await archiver("retry", "--state", "archived", "--all", "--dry-run", "--json")).document["would_retry"] == 3
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


@pytest.mark.parametrize("command", [["retry"], ["cancel", "--all", "--reason", "x"]])
@pytest.mark.parametrize("option", ["--since", "--until"])
async def test_a_time_that_is_none_is_told_with_its_option_and_the_way_to_write_one(
    archiver: Program, command: list[str], option: str
) -> None:
    for value in ("yesterday", "", "2026-02-30", "0001-01-01T00:00+14:00", b"\xff"):
        result = await archiver(*command, option, value)
        result.refused(2, option, "must be an ISO 8601 date or date-time", "2026-03-31T08:00:00+02:00")


async def test_a_span_that_nothing_can_lie_in_is_refused(archiver: Program) -> None:
    result = await archiver("retry", "--since", "2026-04-01", "--until", "2026-04-01")
    result.refused(2, "--until 2026-04-01 00:00:00 UTC must be after --since", "name the next day")
    (await archiver("cancel", "--all", "--reason", "x", "--since", "2026-04-02", "--until", "2026-04-01")).refused(2, "--until")


async def test_nobody_brings_everything_back_by_leaving_out_what_is_meant(archiver: Program, sql: Any) -> None:
    await fail(sql, "a", reason="conflict", finished_at="2026-04-01T00:00Z")
    for words in ([], ["--state", "failed"], ["--dry-run"]):
        (await archiver("retry", *words)).refused(2, "no session chosen", "--all", "--error", "--from")
    (await archiver("retry", "a", "--all")).refused(2, "exclude each other")
    assert await sql.fetchval("SELECT state FROM archive_queue") == "failed"
    assert (await archiver("retry", "--state", "failed", "--all")).stdout == "1 brought back\n"


async def test_pause_and_resume_take_one_bot_or_all(archiver: Program, sql: Any) -> None:
    for verb in ("pause", "resume"):
        (await archiver(verb)).refused(2, "no bot named", f"archiver {verb} --bot NAME (bot)", f"archiver {verb} --all")
        (await archiver(verb, "--bot", "bot", "--all")).refused(2, "exclude each other")
    assert await sql.fetchval("SELECT count(*) FROM archive_bot_events") == 0
    assert (await archiver("pause", "--all")).stdout == "paused: bot\n"
    assert (await archiver("resume", "--all")).stdout == "resumed: bot\n"


async def test_options_that_do_not_exist_are_refused(archiver: Program) -> None:
    (await archiver("retry", "--state", "unavailable")).refused(2, "--state", '"unavailable"', "failed")
    (await archiver("cancel", "a", "--reason", "x", "--state", "failed")).refused(2, "--state", '"failed"', "pending")
    (await archiver("cancel", "--dry-run", "--reason", "x")).refused(2, "no session named", "--all")
    (await archiver("retry", "--dry-run", "--bot", "nobody")).refused(2, 'unknown bot "nobody"')


async def test_a_day_of_calls_is_chosen_in_the_bots_own_time_zone(archiver: Program, data: dict[str, Any], sql: Any) -> None:
    data["bots"][0]["time_zone"] = "Asia/Kolkata"
    data["bots"].append({**data["bots"][0], "name": "utc", "time_zone": "UTC"})
    archiver.configure(data)
    for bot, session_id, at in (("bot", "in", "03-30T18:30"), ("bot", "out", "03-31T18:30"), ("utc", "day", "03-31T18:30")):
        await sql.execute("INSERT INTO archive_queue (bot, session_id, started_at) VALUES ($1, $2, $3::text::timestamptz)",
                          bot, session_id, f"2026-{at}Z")  # fmt: skip
    day = ("--from", "2026-03-31", "--to", "2026-04-01")
    cancelled = await archiver("cancel", "--all", "--reason", "x", *day, "--json")
    assert sorted(cancelled.document["session_ids"]) == ["day", "in"]
    assert (await archiver("retry", "in", "day", *day, "--bot", "bot", "--json")).document["session_ids"] == ["in"]
    (await archiver("retry", "in", "--from", "2026-04-01", "--to", "2026-04-01")).refused(
        2, "--to 2026-04-01", "name the next day"
    )
    (await archiver("cancel", "in", "--reason", "x", "--from", "2999-01-01")).refused(2, "--from 2999-01-01", "future")
    (await archiver("retry", "in", "--from", "yesterday")).refused(2, "--from", "must be an ISO 8601 date or date-time")
