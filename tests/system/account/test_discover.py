"""`discover`: which calls took place in a span, by which listing, and how long it takes."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from archiver.simulator.platform import Simulator
from tests.system.account.conftest import DAY, NEXT, call, made
from tests.system.conftest import Program, eventually


@pytest.mark.parametrize("discovery", ["sessions", "call_details"])
@pytest.mark.parametrize(
    ("zone", "day"),
    [("Asia/Kolkata", "2025-03-09"), ("America/New_York", "2025-03-09"), ("America/New_York", "2025-11-02")],
)
async def test_calls_land_in_the_right_night(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any, zone: str, day: str, discovery: str
) -> None:
    data["bots"][0] |= {"time_zone": zone, "discovery": discovery}
    blank.configure(data)
    where, today = ZoneInfo(zone), date.fromisoformat(day)
    midnights = [datetime.combine(today + timedelta(days=n), datetime.min.time(), where).astimezone(UTC) for n in range(3)]
    assert (midnights[1] - midnights[0]) / timedelta(hours=1) == {"2025-11-02": 25, "2025-03-09": 24 if "K" in zone else 23}[day]
    moment = timedelta(milliseconds=1)
    simulator.set_history(
        {"calls": [call(2 * n + k, midnight - moment * (1 - k)) for n, midnight in enumerate(midnights) for k in (0, 1)]}
    )
    for offset in (0, 1):
        start, end = (str(today + timedelta(days=offset + n)) for n in (0, 1))
        result = await blank("discover", "--from", start, "--to", end, "--json")
        assert result.code == 0, result
        assert (result.document["calls"], result.document["new"]) == (2, 2)
        told = await blank("reconcile", "--from", start, "--to", end, "--format", "json")
        assert [(each["day"], each["calls"]) for each in told.document["days"]] == [(start, 2)]
    found = await sql.fetch("SELECT session_id FROM archive_queue ORDER BY session_id")
    assert [int(row["session_id"][-8:], 16) for row in found] == [1, 2, 3, 4]


async def test_a_dry_run_tells_what_would_be_and_adds_nothing(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history({"calls": [call(n, f"2025-03-0{1 + n % 3}T12:00:00Z") for n in range(30)]})
    assert (await archiver("discover", "--from", "2025-03-01", "--to", "2025-03-02")).code == 0
    assert (await archiver("worker", "--drain")).code == 0
    result = await archiver("discover", "--from", "2025-03-01", "--to", "2025-04-01", "--dry-run", "--json")
    [found] = result.document["bots"]
    assert (found["calls"], found["known"], found["new"]) == (30, 10, 20)
    assert found["days"] == {"2025-03-01": 10, "2025-03-02": 10, "2025-03-03": 10}
    mean = await sql.fetchval("SELECT sum(bytes) / 10 FROM archived_recordings")
    assert found["bytes"] == pytest.approx(20 * float(mean), abs=1)
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 10
    assert await sql.fetchval("SELECT count(*) FROM archive_discoveries") == 1
    for_people = await archiver("discover", "--from", "2025-03-01", "--to", "2025-04-01", "--dry-run")
    assert "20 of them new" in for_people.stdout


async def test_how_long_it_takes_follows_from_the_limits(blank: Program, data: dict[str, Any], simulator: Simulator) -> None:
    """Of recordings: those that bots of one account share take as long as all of them together."""
    bot = data["bots"][0]
    bot |= {"account_rate_limits": ["60000/minute", "1800/hour"], "rate_limits": ["600/minute"]}
    other = simulator.bot_id + "-2"
    simulator.add_bot(other, simulator.client_id, simulator.client_secret)
    data["bots"].append(bot | {"name": "other", "bot_id": other})
    blank.configure(data)
    simulator.set_history(made(calls=1000))
    result = await blank("discover", "--from", DAY, "--to", NEXT, "--dry-run", "--json")
    new = [found["new"] for found in result.document["bots"]]
    assert sum(new) >= 1000
    assert [found["seconds"] for found in result.document["bots"]] == [sum(new) * 2] * 2


@pytest.mark.parametrize(
    ("scopes", "source", "code"),
    [
        (["SmartAssist Analytics", "Bot Sessions"], "interaction_details", 0),
        (["Bot Sessions"], "sessions", 0),
        (["SmartAssist Recordings"], "", 3),
    ],
)
async def test_the_listing_is_chosen_by_what_the_credentials_may_use(
    archiver: Program, simulator: Simulator, scopes: list[str], source: str, code: int
) -> None:
    simulator.set_history(made(calls=5))
    simulator.alter({"scopes": scopes})
    result = await archiver("discover", "--from", DAY, "--to", NEXT, "--json")
    assert result.code == code, result
    assert [found["source"] for found in result.document["bots"]] == ([source] if source else [])
    if not source:
        assert "Bot Sessions" in result.stderr
        assert "Traceback" not in result.stderr


async def test_an_account_that_has_no_call_details_is_listed_by_its_sessions(
    blank: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    data["bots"][0]["account_id"] = "a-which-the-platform-does-not-know"
    blank.configure(data)
    simulator.set_history(made(calls=5))
    result = await blank("discover", "--from", DAY, "--to", NEXT, "--json")
    assert result.code == 0, result
    assert [(found["source"], found["calls"]) for found in result.document["bots"]] == [("sessions", 5)]
    assert "listing_refused" in result.stderr


async def test_a_reading_that_was_killed_goes_on(blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any) -> None:
    data["bots"][0]["discovery"] = "sessions"
    blank.configure(data)
    simulator.settings.rate_limits = ("3/second",)
    data["bots"][0]["rate_limits"] = ["3/second"]
    blank.configure(data)
    simulator.set_history(made(**{"from": "2025-01-01T00:00:00Z"}, calls=200))
    arguments = ("discover", "--from", "2025-01-01", "--to", NEXT, "--json")
    broken = await blank.start(*arguments)
    await eventually(lambda: sql.fetchval("SELECT max(reached) > min(from_at) FROM archive_discoveries"))
    os.kill(broken.process.pid, signal.SIGKILL)
    await broken.ended()
    whole = await blank(*arguments)
    assert whole.code == 0, whole
    [found] = whole.document["bots"]
    assert found["resumed"]
    assert found["calls"] == 200
    steps, again = 10, 1  # of 6 days and 23 hours; the stretch that it was killed in
    assert simulator.report()["listings"]["get_sessions"] <= steps + again
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 200
    assert simulator.report()["api"]["rate_limited"] == 0


async def test_only_the_facts_that_may_be_are_kept(blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any) -> None:
    data["discovery"] = {"keep": ["queue", "direction"]}
    blank.configure(data)
    simulator.set_history({"calls": [call(1, f"{DAY}T10:00:00Z", caller="+15550100", queue="Claims", agent="Asha")]})
    result = await blank("--log-level", "debug", "discover", "--from", DAY, "--to", NEXT)
    [row] = await sql.fetch("SELECT call, started_at, ended_at FROM archive_sessions")
    assert json.loads(row["call"]) == {"queue": ["Claims"], "direction": "Inbound"}
    assert row["ended_at"] - row["started_at"] == timedelta(seconds=1)
    assert "+15550100" not in result.stderr
    assert "Asha" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "yesterday"], ["--from", "yesterday", "ISO 8601"]),
        (["--from", NEXT, "--to", DAY], ["no past time lies between", NEXT, DAY]),
        (["--from", DAY, "--to", DAY], ["no past time lies between"]),
        (["--from", "2999-01-01"], ["no past time lies between", "now"]),
        (["--from", "0001-01-01T00:00:00+14:00"], ["cannot be the time of a call"]),
        (["--from", DAY, "--bot", "nobody"], ["unknown bot", "nobody"]),
    ],
)
@pytest.mark.parametrize("command", ["discover", "reconcile", "backfill"])
async def test_what_cannot_be_is_refused(archiver: Program, command: str, arguments: list[str], words: list[str]) -> None:
    (await archiver(command, *arguments)).refused(2, *words)
