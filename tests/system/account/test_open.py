"""What a night left open stays in the reports until it is mended or somebody answers for it; each account is kept."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from archiver import __version__
from archiver.simulator.platform import Simulator
from tests.system.account.conftest import DAY, NEXT, account, counts_of, made
from tests.system.conftest import Program

NIGHTS = [str(date.fromisoformat(DAY) + timedelta(days=n)) for n in range(5)]


async def test_a_failure_is_in_each_nights_report_until_it_is_accepted_or_mended(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    simulator.set_history(made(calls=6, failing=2))
    assert (await archiver("nightly", "--from", NIGHTS[0], "--to", NIGHTS[1])).code == 3
    failed = [row["session_id"] for row in await sql.fetch("SELECT session_id FROM archive_sessions WHERE state = 'failed'")]
    assert (await archiver("nightly", "--to", NIGHTS[2])).code == 3  # the overlap has them in this account
    # From here on they are in no account of their own.
    later = await archiver("nightly", "--to", NIGHTS[3], "--format", "json")
    assert later.code == 3, later
    document = later.document
    assert (document["complete"], document["calls"], document["earlier"]["failed"]) == (True, 0, 2)
    assert {each["session_id"] for each in document["earlier"]["sessions"]} == set(failed)
    told = await archiver("nightly", "--to", NIGHTS[4])
    assert told.code == 3
    assert "still open of other times: 2 failed" in told.stdout
    assert all(name in told.stdout for name in failed)

    (await archiver("accept", failed[0])).refused(2, "--reason")
    (await archiver("accept", "--reason", "x")).refused(2, "--all")
    accepted = await archiver("accept", failed[0], "nobody", "--reason", "the caller never spoke", "--json")
    assert accepted.document == {"accepted": 1, "session_ids": [failed[0]]}
    assert failed[1] in (await archiver("list", "--open")).stdout
    assert failed[0] not in (await archiver("list", "--open")).stdout
    both = await account(archiver, code=3)
    assert counts_of(both) == {"calls": 6, "archived": 4, "failed": 2, "accepted": 1}
    assert (await archiver("accept", "--all", "--reason", "known")).code == 0
    assert counts_of(await account(archiver, code=0)) == {"calls": 6, "archived": 4, "failed": 2, "accepted": 2}
    assert (await archiver("nightly", "--to", NIGHTS[4])).code == 0
    shown = await archiver("show", failed[0])
    assert "the caller never spoke" in shown.stdout
    status = (await archiver("status", "--json")).document
    assert (status["sessions"]["failed"], status["accepted"]) == (2, 2)

    simulator.set_history({"recovered": True})
    assert (await archiver("retry", failed[0])).code == 0
    assert (await archiver("worker", "--drain")).code == 0
    assert counts_of(await account(archiver, code=0)) == {"calls": 6, "archived": 5, "failed": 1, "accepted": 1}


async def test_a_mismatch_stays_open_until_it_is_accepted_and_opens_again_with_another(
    archiver: Program, simulator: Simulator, sql: Any, tmp_path: Path
) -> None:
    simulator.set_history(made(calls=3))
    assert (await archiver("nightly", "--from", NIGHTS[0], "--to", NIGHTS[1])).code == 0
    one, other, *_ = await sql.fetch("SELECT session_id, store_key FROM archived_recordings ORDER BY session_id")
    (tmp_path / "store" / one["store_key"]).unlink()
    assert counts_of(await account(archiver, code=3)) == {"calls": 3, "archived": 3, "mismatched": 1}
    assert (await archiver("nightly", "--to", NIGHTS[3])).code == 3
    later = await archiver("nightly", "--to", NIGHTS[4], "--format", "json")
    assert (later.code, later.document["earlier"]["mismatched"]) == (3, 1)
    assert (await archiver("accept", other["session_id"], "--reason", "x", "--json")).document["accepted"] == 0
    assert (await archiver("accept", one["session_id"], "--reason", "lost with its disk", "--json")).document["accepted"] == 1
    assert counts_of(await account(archiver, code=0)) == {"calls": 3, "archived": 3, "mismatched": 1, "accepted": 1}
    assert (await archiver("nightly", "--to", NIGHTS[4])).code == 0
    await sql.execute("UPDATE archived_recordings SET seconds = 900 WHERE session_id = $1", one["session_id"])
    assert counts_of(await account(archiver, code=3)) == {"calls": 3, "archived": 3, "mismatched": 1}


async def test_what_was_repaired_is_open_no_more(archiver: Program, simulator: Simulator, sql: Any, tmp_path: Path) -> None:
    simulator.set_history(made(calls=2))
    assert (await archiver("nightly", "--from", NIGHTS[0], "--to", NIGHTS[1])).code == 0
    lost = await sql.fetchrow("SELECT session_id, store_key FROM archived_recordings ORDER BY session_id")
    (tmp_path / "store" / lost["store_key"]).unlink()
    assert counts_of(await account(archiver, code=3)) == {"calls": 2, "archived": 2, "mismatched": 1}
    assert lost["session_id"] in (await archiver("list", "--open")).stdout
    assert (await archiver("repair", lost["session_id"])).code == 0
    assert (await archiver("list", "--open")).stdout == "no session found\n"


async def test_accounts_are_kept_and_part_of_a_day_is_none(archiver: Program, simulator: Simulator) -> None:
    simulator.set_history(made(calls=40))
    assert (await archiver("nightly", "--from", DAY, "--to", NEXT)).code == 0
    part = await archiver("reconcile", "--from", f"{DAY}T00:00:00", "--to", f"{DAY}T12:00:00", "--format", "json")
    assert part.code == 0
    document = part.document
    [day] = document["days"]
    assert (day["whole"], day["complete"], document["complete"]) == (False, False, True)
    assert (document["command"], document["version"]) == ("reconcile", __version__)
    assert document["made_at"] > document["to"]
    assert "@" in document["made_by"]
    people = await archiver("reconcile", "--from", f"{DAY}T00:00:00", "--to", f"{DAY}T12:00:00")
    assert ["part", DAY] in [line.split()[:2] for line in people.stdout.splitlines()]

    kept = (await archiver("nights", "--json")).document["accounts"]
    assert [(each["command"], each["complete"], each["version"]) for each in kept] == [
        ("reconcile", True, __version__), ("reconcile", True, __version__), ("nightly", True, __version__)
    ]  # fmt: skip
    assert kept[-1]["counts"]["calls"] == 40
    days = (datetime.now(UTC).date() - date.fromisoformat(DAY)).days + 1
    shown = (await archiver("nights", "--days", str(days), "--json")).document["days"]
    # The account of the whole day stands before the later ones of a part of it; the day before was never asked for.
    assert (shown[-1]["day"], shown[-1]["result"], shown[-1]["counts"]["calls"]) == (DAY, "complete", 40)
    assert {each["result"] for each in shown[:-1]} == {"none"}
    assert (await archiver("status", "--json")).document["bots"]["bot"]["last_complete_day"] == DAY
    assert (await archiver("nights")).stdout.count("complete") == 3


async def test_nobody_has_made_an_account_yet(archiver: Program) -> None:
    assert "no account was made yet" in (await archiver("nights")).stdout
    (await archiver("nights", "--bot", "nobody")).refused(2, "nobody")
