"""A long backfill, scaled down: killed while it reads the listings, killed while it archives, and no call is missing.

`benchmarks/fleet/backfill.py` does the same with two years of 200,000 calls.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.simulator.platform import Simulator
from tests.conftest import is_recording, settings_data
from tests.system.conftest import Program

CALLS, CHATS, UNAVAILABLE = 600, 30, 12
VOICE = CALLS - CHATS
SPAN = ("--from", "2024-01-02", "--to", "2026-01-01")
HISTORY = {
    "from": "2024-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z", "calls": CALLS, "seconds": [0.1, 0.2],
    "peak": {"hour": 10, "share": 0.2}, "unavailable": UNAVAILABLE, "other_channels": CHATS,
}  # fmt: skip
LEASE_SECONDS = 3


@pytest.mark.once
async def test_a_backfill_that_is_killed_while_it_lists_and_while_it_archives_misses_no_call_and_stores_none_twice(
    tmp_path: Path, simulator: Simulator, database_url: str
) -> None:
    store = tmp_path / "store"
    data: dict[str, Any] = settings_data(simulator, database_url, store)
    data["bots"][0] |= {"account_id": simulator.settings.account_id, "account_rate_limits": ["60000/minute"]}
    data["bots"][0]["discovery"] = "call_details"
    data["worker"] |= {"lease_seconds": LEASE_SECONDS, "concurrency": 4}
    simulator.settings.account_rate_limits = ()
    assert simulator.set_history({"made": HISTORY})["voice"] == VOICE
    program = Program(tmp_path)
    program.configure(data)
    sql = await asyncpg.connect(database_url)
    try:
        backfill = await program.start("backfill", *SPAN)
        await simulator.wait_for(lambda report: report["listings"]["call_details"] >= 30, timeout=30)
        await backfill.kill()
        reached = await sql.fetchval("SELECT reached > from_at FROM archive_discoveries")
        assert reached, "it was to be killed before it had read all listings"

        backfill = await program.start("backfill", *SPAN)
        await backfill.logged("calls_discovered", timeout=30)
        asked = simulator.report()["api"]["calls"]
        await simulator.wait_for(lambda report: report["api"]["calls"] >= asked + 20, timeout=30)
        await backfill.kill()
        left = await sql.fetchval("SELECT count(*) FROM archive_queue WHERE finished_at IS NULL")
        assert left, "it was to be killed before it had archived all calls"
        listed = simulator.report()["listings"]

        ended = await program("backfill", *SPAN, timeout=60)
        assert ended.code == 0, ended
        assert f"{VOICE} calls" in ended.stdout
        assert simulator.report()["listings"] == listed, "what was read to its end was read again"
        assert listed["refused"] == 0

        reconciled, verified = await asyncio.gather(program("reconcile", *SPAN, "--format", "json"), program("verify", "--json"))
        assert reconciled.code == 0, reconciled
        account = reconciled.document
        counted = {name: account[name] for name in ("calls", "archived", "unavailable", "missing", "mismatched", "unlisted")}
        assert counted == {
            "calls": VOICE, "archived": VOICE - UNAVAILABLE, "unavailable": UNAVAILABLE,
            "missing": 0, "mismatched": 0, "unlisted": 0,
        }  # fmt: skip
        assert {item["session_id"] for item in account["items"]} == {
            call.session_id for call in simulator.calls() if call.recording == "unavailable"
        }
        assert verified.code == 0, verified
        rescued = await sql.fetchval("SELECT count(*) FROM archive_history WHERE event = 'rescued'")
        recorded = {row["store_key"] for row in await sql.fetch("SELECT store_key FROM archived_recordings")}
        assert rescued, "no session was taken over from the killed"
        files = [path.relative_to(store).as_posix() for path in store.rglob("*") if is_recording(path)]
        assert sorted(files) == sorted(recorded), "a file that the ledger doesn't know, or a part that the killed left"
        assert len(files) == VOICE - UNAVAILABLE
    finally:
        await sql.close()
        await program.close()
