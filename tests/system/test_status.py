"""`status`: how many sessions are in which state, the pace and the time left."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from archiver.cli.output import lasting
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, archived

STATES = {"pending", "claimed", "archived", "unavailable", "failed", "cancelled"}


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
    assert {"state": "failed", "reason": "invalid_session_id", "sessions": 1, "accepted": 0} in document["reasons"]
    told = (await archiver("status")).stdout
    assert "invalid_session_id" in told
    assert "stranger" in told


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
    assert (await archiver("pause", "--all")).code == 0, "again: nothing changes"
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

    assert (await archiver("resume", "--all")).stdout == "resumed: bot, 1 hold(s) released\n"
    await archiver("resume", "--all")

    paused, resumed = (await archiver("status", "--json")).document["bot_events"]
    assert (paused["bot"], paused["event"], paused["actor"]) == ("bot", "paused", who)
    assert (resumed["bot"], resumed["event"], resumed["actor"]) == ("bot", "resumed", who)
    assert (resumed["data"]["paused_by"], resumed["data"]["holds"]) == (who, {"voicemail": "x"})


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
