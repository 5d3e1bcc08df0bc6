"""`get` brings recordings out of the store."""

from __future__ import annotations

from typing import Any

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, archived


async def test_recordings_are_brought_as_sha256sum_checks_them(archiver: Program, simulator: Simulator, sql: Any) -> None:
    await archived(archiver, simulator, "s1")
    result = await archiver.shell("archiver get s1 | sha256sum --check && archiver get s1 --output there --json")
    assert result.code == 0, result
    first, _, document = result.stdout.partition("\n")
    assert first.startswith("s1/")
    assert first.endswith(": OK")
    assert '"outcome": "copied"' in document
    assert '"folder": "there"' in document

    odd = "token=0123456789abcdef0123456789abcdef" + r"\\" + "\n" + "x"
    checked = await archiver.shell(f"archiver get s1 --output '{odd}' | sha256sum --check --status")
    assert checked.code == 0, checked

    (row,) = await sql.fetch("SELECT store_key, file_name, sha256 FROM archived_recordings")
    (archiver.folder / "store" / row["store_key"]).unlink()
    assert (await archiver("get", "s1")).code == 0, "an equal file is there"
    lost = await archiver("get", "s1", "--output", "new")
    assert (lost.code, lost.stdout) == (3, "")
    assert all(word in lost.stderr for word in (f"missing: {row['store_key']}", row["sha256"]))
    assert not list((archiver.folder / "new").rglob("*"))
    (archiver.folder / "s1" / row["file_name"]).write_bytes(b"other")
    taken = await archiver("get", "s1")
    assert (taken.code, taken.stdout) == (1, "")
    assert row["sha256"] in taken.stderr
    assert "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa" in taken.stderr


async def test_what_has_no_recordings_is_said_clearly(archiver: Program, sql: Any) -> None:
    rows = "('bot', 's1', 'recording'), ('bot', 'two', 'recording'), ('other', 'two', 'voicemail')"
    await sql.execute(f"INSERT INTO archive_queue (bot, session_id, kind) VALUES {rows}")
    (await archiver("get", "nobody")).refused(1, 'no session "nobody" was ever enqueued')
    (await archiver("get", "s1")).refused(1, "nothing is recorded of session s1", "recording: pending")
    (await archiver("get", "two")).refused(2, "2 sessions have the ID two: bot/recording, other/voicemail", "--bot")
