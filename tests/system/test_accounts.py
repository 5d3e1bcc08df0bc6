"""Which calls took place, and what became of each: discover, nightly and reconcile as their users meet them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from archiver.account.reconcile import COUNTS
from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, eventually

DAY = "2025-03-09"
NEXT = "2025-03-10"


@pytest.fixture
def data(data: dict[str, Any], simulator: Simulator) -> dict[str, Any]:
    simulator.settings.account_rate_limits = ()
    data["bots"][0] |= {"account_id": simulator.settings.account_id, "account_rate_limits": ["60000/minute"]}
    return data


def call(number: int, started_at: str | datetime, seconds: float = 1, **fields: Any) -> dict[str, Any]:
    start = datetime.fromisoformat(started_at) if isinstance(started_at, str) else started_at
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    end = (start + timedelta(seconds=seconds)).isoformat()
    return {"session_id": f"65e7133a3242653c{number:08x}", "started_at": start.isoformat(), "ended_at": end, **fields}


def made(**changes: Any) -> dict[str, Any]:
    fields = {"from": f"{DAY}T00:00:00Z", "to": f"{NEXT}T00:00:00Z", "calls": 300, "seed": 7, "seconds": [0.5, 1.5]}
    return {"made": fields | changes}


def counts_of(document: dict[str, Any]) -> dict[str, int]:
    return {name: document[name] for name in COUNTS if document[name]}


async def account(archiver: Program, *arguments: str, code: int) -> dict[str, Any]:
    result = await archiver("reconcile", "--from", DAY, "--to", NEXT, "--format", "json", *arguments)
    assert result.code == code, result
    document: dict[str, Any] = result.document
    return document


# --- nightly


async def test_a_night_closes_its_account(archiver: Program, simulator: Simulator) -> None:
    simulator.set_history(made(unavailable=20, in_progress=12, failing=3, other_channels=15, voicemails=0))
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    document = night.document
    assert counts_of(document) == {"calls": 285, "archived": 262, "unavailable": 20, "failed": 3}
    assert (document["from"], document["to"]) == (f"{DAY}T00:00:00+00:00", f"{NEXT}T00:00:00+00:00")
    assert Counter(item["state"] for item in document["items"]) == {"unavailable": 20, "failed": 3}
    for item in document["items"]:
        assert item.keys() >= {"session_id", "bot", "kind", "state", "reason", "first_asked_at", "asks"}
    assert [(day["day"], day["calls"], day["complete"]) for day in document["days"]] == [(DAY, 285, False)]

    simulator.set_history({"recovered": True})
    assert (await archiver("retry")).code == 0
    assert (await archiver("worker", "--drain")).code == 0
    assert counts_of(await account(archiver, code=0)) == {"calls": 285, "archived": 265, "unavailable": 20}
    assert (await archiver("nightly", "--to", NEXT)).code == 0


async def test_each_night_begins_where_the_last_one_ended_less_the_overlap(archiver: Program, simulator: Simulator) -> None:
    midnight = datetime.combine(datetime.now(UTC).date() + timedelta(days=1), datetime.min.time(), UTC)
    if (left := midnight - datetime.now(UTC)) < timedelta(seconds=60):
        await asyncio.sleep(left.total_seconds() + 0.1)  # the night that ends now must stay the last one
    today = datetime.now(UTC).date()
    nights = [datetime.combine(today - timedelta(days=n), datetime.min.time(), UTC) for n in range(4)]
    late = call(9, nights[2] - timedelta(hours=3), appears_after=3)
    simulator.set_history({"calls": [call(1, nights[3]), call(2, nights[2]), call(3, nights[1]), call(4, nights[0]), late]})
    first = (await archiver("nightly", "--to", nights[2].isoformat(), "--format", "json")).document
    assert (first["from"], counts_of(first)) == (nights[3].isoformat(), {"calls": 1, "archived": 1})
    # What was listed late is found by the next night; the one before last is not read again.
    second = (await archiver("nightly", "--to", nights[1].isoformat(), "--format", "json")).document
    assert (second["from"], counts_of(second)) == (nights[3].isoformat(), {"calls": 3, "archived": 3})
    third = (await archiver("nightly", "--format", "json")).document
    assert (third["from"], third["to"]) == (nights[2].isoformat(), nights[0].isoformat())
    assert counts_of(third) == {"calls": 2, "archived": 2}
    gap = await archiver(
        "nightly", "--from", (nights[0] + timedelta(milliseconds=1)).isoformat(), "--to", datetime.now(UTC).isoformat()
    )
    gap.refused(2, "leave a gap", "--from")


async def test_two_nights_at_once_do_not_collide(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=120))
    results = await asyncio.gather(*(archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json") for _ in range(2)))
    assert [result.code for result in results] == [0, 0], results
    assert {result.document["archived"] for result in results} == {120}
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 120
    assert simulator.report()["media"]["complete"] == 120


async def test_a_night_that_is_stopped_goes_on(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=60))
    simulator.script_all([{"session_id": simulator.calls()[7].session_id, "answers": [{"fault": "hang"}]}])
    night = await archiver.start("nightly", "--from", DAY, "--to", NEXT)
    await eventually(lambda: sql.fetchval("SELECT count(*) = 59 FROM archive_queue WHERE state = 'archived'"))
    night.send(signal.SIGTERM)
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
    simulator.script_all([{"session_id": simulator.calls()[7].session_id}])
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == 60


async def test_a_night_does_not_wait_for_a_backfill(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=30))
    hung, sleeping = "65e7133a3242653c58d70001", "65e7133a3242653c58d70002"
    simulator.script_all([
        {"session_id": hung, "answers": [{"fault": "hang"}]},
        {"session_id": sleeping, "answers": [{"status": "media_in_progress"}]},
    ])  # fmt: skip
    assert (await archiver("enqueue", "--priority", "low", hung, sleeping)).code == 0
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 0, night
    assert counts_of(night.document) == {"calls": 30, "archived": 30}
    left = await sql.fetch("SELECT state FROM archive_queue WHERE priority = 'low'")
    assert {row["state"] for row in left} == {"pending"}


async def test_a_night_asks_again_for_what_was_unavailable(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=10, unavailable=2))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    await sql.execute("UPDATE archive_queue SET recheck_at = now() WHERE recheck_at IS NOT NULL")
    published = [each.session_id for each in simulator.calls() if each.recording == "unavailable"]
    simulator.script_all([{"session_id": each} for each in published])
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert counts_of(night.document)["archived"] == 10


async def test_what_a_stopped_night_has_not_accounted_for_the_next_one_does(archiver: Program, simulator: Simulator) -> None:
    days = [datetime(2025, 3, day, tzinfo=UTC) for day in range(1, 7)]
    simulator.set_history({"calls": [call(number, day) for number, day in enumerate(days)]})
    assert (await archiver("nightly", "--to", days[1].isoformat())).code == 0
    simulator.script_all([{"session_id": simulator.calls()[1].session_id, "answers": [{"fault": "hang"}]}])
    night = await archiver.start("nightly", "--to", days[4].isoformat())
    await night.logged("calls_discovered")
    night.send(signal.SIGTERM)
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
    simulator.script_all([{"session_id": simulator.calls()[1].session_id}])
    following = await archiver("nightly", "--to", days[5].isoformat(), "--format", "json")
    assert following.code == 0, following
    assert following.document["from"] == days[0].isoformat()
    assert counts_of(following.document) == {"calls": 5, "archived": 5}
    assert (await archiver("nightly", "--to", days[5].isoformat(), "--format", "json")).document["from"] == days[4].isoformat()


# --- where days begin


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


# --- discover


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


# --- reconcile


async def test_what_was_lost_by_hand_is_named(archiver: Program, simulator: Simulator, sql: Any, tmp_path: Path) -> None:
    simulator.set_history(made(calls=20))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    rows = await sql.fetch("SELECT queue_id, session_id, store_key FROM archived_recordings ORDER BY session_id")
    deleted_row, deleted_file, cut_file, deleted_ledger, other_length = (row["session_id"] for row in rows[:5])
    for table, column in (("archived_recordings", "queue_id"), ("archive_queue", "id")):
        await sql.execute(f"DELETE FROM {table} WHERE {column} = $1", rows[0]["queue_id"])
    (tmp_path / "store" / rows[1]["store_key"]).unlink()
    os.truncate(tmp_path / "store" / rows[2]["store_key"], 100)
    await sql.execute("DELETE FROM archived_recordings WHERE session_id = $1", deleted_ledger)
    await sql.execute("UPDATE archived_recordings SET seconds = 30 WHERE session_id = $1", other_length)

    document = await account(archiver, code=3)
    assert counts_of(document) == {"calls": 20, "archived": 19, "missing": 1, "mismatched": 4}
    named = {item["session_id"]: (item["state"], item["reason"]) for item in document["items"]}
    assert named == {
        deleted_row: ("missing", "never_enqueued"),
        deleted_file: ("archived", "file_missing"),
        cut_file: ("archived", "file_size"),
        deleted_ledger: ("archived", "fewer_files"),
        other_length: ("archived", "length"),
    }
    verified = await archiver("verify", "--json")
    assert verified.code == 3
    assert {finding["session_id"]: finding["verdict"] for finding in verified.document["findings"]} == {
        deleted_file: "missing",
        cut_file: "changed",
    }
    for_people = await archiver("reconcile", "--from", DAY, "--to", NEXT)
    assert for_people.code == 3
    for session_id in named:
        assert session_id in for_people.stdout
    assert "20 calls = 19 archived, 1 missing; besides 4 mismatched" in for_people.stdout


async def test_every_state_is_accounted_for(archiver: Program, simulator: Simulator, sql: Any) -> None:
    simulator.set_history(made(calls=12, unavailable=1, failing=1))
    assert (await archiver("discover", "--from", DAY, "--to", NEXT)).code == 0
    ids = [row["session_id"] for row in await sql.fetch(
        "SELECT session_id FROM archive_queue ORDER BY session_id"
    ) if simulator_says(simulator, row["session_id"]) == "success"]  # fmt: skip
    assert (await archiver("cancel", ids[0], "--reason", "=HYPERLINK(1)")).code == 0
    await sql.execute("UPDATE archive_queue SET run_at = now() + interval '1 hour' WHERE session_id = $1", ids[1])
    assert (await archiver("worker", "--drain", "--max-wait", "0s")).code == 3
    forgotten = call(99, f"{DAY}T23:00:00Z")
    document = await account(archiver, code=3)
    assert counts_of(document) == {
        "calls": 12, "archived": 8, "unavailable": 1, "failed": 1, "pending": 1, "cancelled": 1,
    }  # fmt: skip
    by_state = {item["state"]: item for item in document["items"]}
    assert by_state["cancelled"]["cancelled_by"]
    assert datetime.fromisoformat(by_state["pending"]["run_at"]) > datetime.now(UTC) + timedelta(minutes=50)
    assert by_state["failed"]["reason"] == "platform_failed"
    assert by_state["unavailable"]["asks"] == 1

    # The platform forgets all but one.
    keep = simulator.calls()[0]
    simulator.set_history({"calls": [keep.model_dump(mode="json"), forgotten]})
    document = await account(archiver, code=3)
    assert document["unlisted"] == 8 - (keep.session_id not in {item["session_id"] for item in document["items"]})
    assert document["missing"] == 1

    table = await archiver("reconcile", "--from", DAY, "--to", NEXT, "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(table.stdout)))
    assert len(lines) == len(document["items"])
    assert {line["reason"] for line in lines} >= {"never_enqueued", "unlisted"}


def simulator_says(simulator: Simulator, session_id: str) -> str:
    [found] = [each for each in simulator.calls() if each.session_id == session_id]
    return found.recording


async def test_a_recording_that_stopped_before_its_call_is_a_mismatch_unless_that_is_fine(
    blank: Program, data: dict[str, Any], simulator: Simulator
) -> None:
    blank.configure(data)
    simulator.set_history({"calls": [call(1, f"{DAY}T10:00:00Z", 20), call(2, f"{DAY}T11:00:00Z", 20)]})
    simulator.script_all([{"session_id": call(1, DAY)["session_id"], "recordings": [{"audio": {"seconds": 12}}]}])
    assert (await blank("nightly", "--from", DAY, "--to", NEXT)).code == 3
    document = await account(blank, code=3)
    [item] = document["items"]
    facts = {"call_seconds": 20.0, "recorded_seconds": [12.0]}
    assert item["mismatches"] == [{"mismatch": "shorter_than_call", **facts}]
    data["bots"][0]["shorter_is_fine"] = True
    blank.configure(data)
    document = await account(blank, code=0)
    assert counts_of(document) == {"calls": 2, "archived": 2, "remarked": 1}
    [item] = document["items"]
    assert (item["reason"], item["remarks"]) == ("shorter_than_call", [{"remark": "shorter_than_call", **facts}])
    [line] = csv.DictReader(io.StringIO((await blank("reconcile", "--from", DAY, "--to", NEXT, "--format", "csv")).stdout))
    assert (line["mismatches"], line["remarks"]) == ("", "shorter_than_call")
    data["bots"][0] |= {"length_tolerance": "8s", "shorter_is_fine": False}
    blank.configure(data)
    assert counts_of(await account(blank, code=0)) == {"calls": 2, "archived": 2}


async def test_a_store_that_is_away_is_no_mismatch(archiver: Program, simulator: Simulator, tmp_path: Path) -> None:
    simulator.set_history(made(calls=3))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    document = await account(archiver, code=3)
    assert document["mismatched"] == 3


# --- backfill


@pytest.mark.parametrize("order", ["--newest-first", "--oldest-first"])
async def test_a_backfill_until_now_that_was_killed_goes_on_and_takes_what_has_come_since(
    archiver: Program, simulator: Simulator, sql: Any, order: str
) -> None:
    simulator.set_history(made(calls=30))
    simulator.script_all([{"session_id": simulator.calls()[7].session_id, "answers": [{"fault": "hang"}]}])
    backfill = await archiver.start("backfill", "--from", DAY, order)
    await backfill.logged("calls_discovered")
    os.kill(backfill.process.pid, signal.SIGKILL)
    await backfill.ended()
    simulator.script_all([{"session_id": simulator.calls()[7].session_id}])
    asked = simulator.report()["listings"]["call_details"]
    gone_on = await archiver("backfill", "--from", DAY, order)
    assert gone_on.code == 0, gone_on
    assert "30 calls, 30 new" in gone_on.stdout
    assert simulator.report()["listings"]["call_details"] <= asked + 1, "at most the seconds that have passed since"
    assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == 30
    assert await sql.fetchval("SELECT count(*) FROM archive_discoveries WHERE finished_at IS NULL") == 0


# --- what the platform deletes


async def test_what_will_be_gone_is_told_before_it_is_and_the_oldest_come_first(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    now = datetime.now(UTC)
    data["bots"][0] |= {"source_retention": "90d", "account_rate_limits": ["1/day"]}
    blank.configure(data)
    waits = "INSERT INTO archive_queue (bot, session_id, started_at) VALUES ('bot', $1, $2)"
    for number, age in enumerate((89.5, 89.5, 400)):
        await sql.execute(waits, f"s-{number}", now - timedelta(days=age))
    gone_from = now + timedelta(days=0.5)
    told = (
        f"2 recordings will be deleted by the platform before they can be archived at the limits in force, "
        f"from {gone_from:%Y-%m-%d} on; 1 waiting call is older than source_retention (90d): probably deleted"
    )
    document = (await blank("status", "--json")).document
    figures = document["bots"]["bot"]["source_retention"]
    assert datetime.fromisoformat(figures.pop("lost_from")) == gone_from
    assert figures == {"days": 90.0, "past": 1, "lost": 2, "at_least": False}
    assert [warning["message"] for warning in document["warnings"]] == [told]
    assert f"warning: bot bot: {told}; next: ask the platform's support for higher limits" in (await blank("status")).stdout
    [finding] = [each for each in (await blank("doctor", "--json")).document["findings"] if each["check"].endswith("retention")]
    assert (finding["verdict"], finding["message"]) == ("warning", told)
    assert "backfill --oldest-first" in finding["mend"]

    # What is done at once is in time; and the oldest is read first.
    await sql.execute("DELETE FROM archive_budgets")  # the call of `doctor` was that day's only one
    data["bots"][0]["account_rate_limits"] = ["60000/minute"]
    blank.configure(data)
    simulator.set_history(made(calls=30, unavailable=2, unanswered=1))
    [dial] = [each for each in simulator.calls() if each.unanswered]
    night = await blank("nightly", "--from", DAY, "--to", NEXT)
    assert "warning: bot bot: 1 waiting call is older than source_retention (90d): probably deleted; next:" in night.stderr
    assert (await blank("backfill", "--from", DAY, "--to", NEXT)).code == 0
    orders = await sql.fetch("SELECT purpose, newest_first FROM archive_discoveries ORDER BY id")
    assert [tuple(row) for row in orders] == [("nightly", False), ("backfill", False)]
    ends = await sql.fetch("SELECT reason, count(*), count(recheck_at) FROM archive_queue WHERE state = 'unavailable' GROUP BY 1")
    rechecks = {row[0]: row[2] for row in ends}
    assert (rechecks["probably_purged"], rechecks["not_answered"]) == (0, 0)
    unavailable = [item for item in (await account(blank, code=0))["items"] if item["state"] == "unavailable"]
    assert Counter(item["reason"] for item in unavailable) == {"probably_purged": 2, "not_answered": 1}
    because = {item["reason"]: item["because"] for item in unavailable}
    assert "probably deleted" in because["probably_purged"]
    assert because["not_answered"] == f"nobody answered this dial of a campaign ({dial.contact_status})"


# --- what goes wrong


@pytest.mark.parametrize("form", ["json", "csv", "table"])
async def test_a_bot_that_is_refused_spoils_no_others_night(
    blank: Program, data: dict[str, Any], simulator: Simulator, form: str
) -> None:
    [bot] = data["bots"]
    data["bots"].append(bot | {"name": "refused", "client_secret": "not-the-secret-of-this-app-0123456789"})
    blank.configure(data)
    simulator.set_history(made(calls=8))
    night = await blank("nightly", "--from", DAY, "--to", NEXT, "--format", form)
    assert night.code == 3, night
    assert "bot refused" in night.stderr
    assert "Traceback" not in night.stderr
    if form == "json":
        assert counts_of(night.document) == {"calls": 8, "archived": 8}
        assert night.document["failed_bots"].keys() == {"refused"}
        assert not night.document["complete"]


async def test_a_bot_that_waits_for_its_budget_holds_up_nobody(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    [bot] = data["bots"]
    data["bots"] = [bot | {"name": "waits", "rate_limits": ["1/hour"], "discovery": "sessions"}, bot | {"name": "goes_on"}]
    blank.configure(data)
    await sql.execute(
        "INSERT INTO archive_budgets (key, blocked_until) VALUES ($1, now() + interval '1 hour')",
        f"{simulator.api_url}|{simulator.bot_id}",
    )
    other = simulator.bot_id + "-2"
    simulator.add_bot(other, simulator.client_id, simulator.client_secret)
    data["bots"][1]["bot_id"] = other
    blank.configure(data)
    simulator.set_history(made(calls=8))
    night = await blank.start("nightly", "--from", DAY, "--to", NEXT)
    await eventually(lambda: sql.fetchval("SELECT count(*) = 8 FROM archive_queue WHERE state = 'archived'"))
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143


async def test_rows_of_other_programs_with_impossible_times_do_not_break_an_account(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.set_history(made(calls=4))
    ids = [each.session_id for each in simulator.calls()]
    await sql.execute("INSERT INTO archive_queue (bot, session_id, started_at) VALUES ('bot', $1, '0044-03-15 BC')", ids[0])
    await sql.execute("INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', $1, '12000-01-01')", ids[1])
    await sql.execute("INSERT INTO archive_queue (bot, session_id, ended_at) VALUES ('bot', $1, '0044-03-15 BC')", ids[2])
    document = await account(archiver, code=3)
    assert counts_of(document) == {"calls": 4, "pending": 3, "missing": 1}


async def test_a_call_that_began_at_another_time_than_was_asked_for_is_archived_and_no_account_is_complete(
    archiver: Program, simulator: Simulator, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archiver.simulator import listings, rows

    true_row = rows.details_row

    def in_another_zone(call_: Any, bot_id: str, offset: int, selected: Any) -> dict[str, Any]:
        return true_row(call_, bot_id, offset + 300, selected)

    monkeypatch.setattr(listings, "details_row", in_another_zone)
    simulator.set_history({"calls": [call(1, f"{DAY}T01:00:00Z"), call(2, f"{DAY}T12:00:00Z")]})
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    assert not night.document["complete"]
    assert {problem["problem"] for problem in night.document["problems"]} == {"calls_outside"}
    assert await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'archived'") == 2


async def test_a_listing_that_told_a_bots_calls_is_not_given_up_for_another(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.set_history({"calls": [call(1, f"{DAY}T01:00:00Z", voicemail=True)]})
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    assert [row["kind"] for row in await sql.fetch("SELECT kind FROM archive_queue")] == ["voicemail"]
    simulator.alter({"scopes": ["SmartAssist Recordings", "SmartAssist Voicemail", "Bot Sessions"]})
    night = await archiver("nightly", "--from", DAY, "--to", NEXT, "--format", "json")
    assert night.code == 3, night
    assert "SmartAssist Analytics" in night.stderr
    assert await sql.fetchval("SELECT count(*) FROM archive_queue") == 1


async def test_a_session_that_was_passed_on_is_one_call(
    archiver: Program, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archiver.simulator import listings, rows

    true_row = rows.details_row
    border = datetime.fromisoformat(f"{DAY}T12:00:00+00:00")

    def passed_on(call_: Any, bot_id: str, offset: int, selected: Any) -> dict[str, Any]:
        row = true_row(call_, bot_id, offset, selected)
        return row | {"sessionId": call(1, DAY)["session_id"]}  # two conversations of one session

    monkeypatch.setattr(listings, "details_row", passed_on)
    first, second = call(1, border - timedelta(seconds=20), 20), call(2, border, 10)
    simulator.set_history({"calls": [first, second]})
    simulator.script_all([{"session_id": first["session_id"], "recordings": [{"audio": {"seconds": 30}}]}])
    for start, end in ((DAY, border.isoformat()), (border.isoformat(), NEXT)):
        assert (await archiver("discover", "--from", start, "--to", end)).code == 0
    assert (await archiver("worker", "--drain")).code == 0
    assert counts_of(await account(archiver, code=0)) == {"calls": 1, "archived": 1}
    late = await archiver("reconcile", "--from", border.isoformat(), "--to", NEXT, "--format", "json")
    assert (late.code, late.document["calls"]) == (0, 0), "it counts where it began"


async def test_sigterm_ends_a_night_that_is_being_closed(
    blank: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    data["bots"][0] |= {"discovery": "sessions", "rate_limits": ["2/minute"]}
    blank.configure(data)
    simulator.set_history(made(calls=5))
    night = await blank.start("nightly", "--from", DAY, "--to", NEXT)
    await night.logged("worker_stopped")  # the account waits for the budget now
    night.send(signal.SIGTERM)
    assert (await night.ended()).code == 143
