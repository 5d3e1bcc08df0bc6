"""`repair` mends what `verify` found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, archived


async def test_what_verify_found_is_repaired_and_told(archiver: Program, simulator: Simulator, sql: Any) -> None:
    await archived(archiver, simulator, "deleted", "altered", "whole")
    rows = await sql.fetch("SELECT session_id, store_key, sha256 FROM archived_recordings")
    keys = {row["session_id"]: row["store_key"] for row in rows}
    store = archiver.folder / "store"
    (store / keys["deleted"]).unlink()
    (store / keys["altered"]).write_bytes(b"altered")
    assert (await archiver("verify")).code == 3

    dry = await archiver("repair", "--dry-run")
    assert (dry.code, dry.stdout.splitlines()[-1]) == (0, "2 would ask")
    done = await archiver("repair")

    assert done.code == 0, done
    beside = Path(keys["altered"]).with_suffix(f".repaired{Path(keys['altered']).suffix}")
    assert set(done.stdout.splitlines()) == {
        f"repaired: {keys['deleted']} (from the platform)",
        f"repaired: {keys['altered']} as {beside} (from the platform)",
        "2 repaired",
    }
    assert (store / keys["altered"]).read_bytes() == b"altered"
    verified = await archiver("verify", "--json")
    assert (verified.code, verified.document["equal"], verified.document["findings_kept"]) == (0, 3, True)
    shown = (await archiver("show", "altered")).stdout
    assert all(word in shown for word in ("repaired", f"store_key {beside}", "source platform", f"store key  {beside}"))
    again = await archiver("repair", "--json")
    assert (again.code, again.document) == (0, {"dry_run": False, "counts": {}, "files": []})


async def test_a_loss_that_cannot_be_repaired_is_named_each_time(archiver: Program, simulator: Simulator, sql: Any) -> None:
    await archived(archiver, simulator, "s1")
    key = await sql.fetchval("SELECT store_key FROM archived_recordings")
    (archiver.folder / "store" / key).unlink()
    simulator.script({"session_id": "s1", "answers": [{"status": "media_unavailable"}]})
    result = await archiver("repair", "s1")
    assert (result.code, result.stdout.splitlines()[-1]) == (3, "1 not repaired")
    assert f"not repaired: {key}: media_unavailable: " in result.stdout
    document = (await archiver("repair", "--json")).document
    assert [(one["store_key"], one["outcome"], one["reason"]) for one in document["files"]] == [
        (key, "not_repaired", "media_unavailable")
    ]
    (await archiver("repair", "nobody")).refused(1, 'no session "nobody" was ever enqueued')
    (await archiver("repair", "--bot", "nobody")).refused(2, 'unknown bot "nobody"')


async def test_a_second_repair_waits_for_the_first(archiver: Program, simulator: Simulator, sql: Any) -> None:
    await archived(archiver, simulator, "s1")
    key = await sql.fetchval("SELECT store_key FROM archived_recordings")
    (archiver.folder / "store" / key).unlink()
    await sql.execute("SELECT pg_advisory_lock(hashtextextended('archiver repair', 0))")
    second = await archiver.start("repair", "s1")
    await second.printed("another repair is running")
    assert not (archiver.folder / "store" / key).exists()
    await sql.execute("SELECT pg_advisory_unlock_all()")
    assert (await second.ended()).code == 0
    assert (archiver.folder / "store" / key).is_file()
