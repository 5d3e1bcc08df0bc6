"""`reconcile`: what became of each call of a span."""

from __future__ import annotations

import csv
import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from tests.system.account.conftest import DAY, NEXT, account, call, counts_of, made
from tests.system.conftest import Program


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
