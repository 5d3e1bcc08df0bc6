"""Fixity: every recorded file is read again and held against the ledger."""

from __future__ import annotations

import os

import pytest

from archiver.evidence.verify import Verified, verify
from archiver.queue import reports
from archiver.queue.sessions import NewSession, Queue
from archiver.stores.local.disk import BLOCK
from tests.archive.conftest import FOLDER, SESSION, SessionHarness


async def record(harness: SessionHarness, queue: Queue, names: list[str]) -> None:
    """Archive a session of these files, and write it down."""
    harness.script(*({"file_name": name, "audio": {"bytes": 1000}} for name in names))
    await queue.enqueue([NewSession("bot", SESSION)], actor="test")
    way = await harness.go()
    database = queue._database
    (row,) = await _rows(database, "SELECT queue_id FROM archive_sessions")
    for file in way.attempt.stored:
        await _rows(
            database,
            """INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name,
               queue_id) VALUES ('bot', $1, 'recording', $2, $3, $4, $5, $6, $7, $8)""",
            *(SESSION, file.ordinal, file.file_name, file.store_key, file.bytes, file.sha256, file.source_name, row["queue_id"]),
        )


async def _rows(database: object, sql: str, *args: object) -> list[dict[str, int]]:
    from archiver.postgres.database import Database

    assert isinstance(database, Database)
    async with database.connection() as connection:
        return [dict(row) for row in await connection.fetch(sql, *args)]


async def findings(harness: SessionHarness, queue: Queue) -> dict[str, Verified]:
    found = [one async for one in verify(queue._database, harness.archive.store, bot=None)]
    assert len({one.store_key for one in found}) == len(found)
    return {one.store_key.rpartition("/")[2]: one for one in found}


async def test_each_way_of_being_wrong_is_found_and_named(harness: SessionHarness, queue: Queue) -> None:
    await record(
        harness,
        queue,
        [
            "equal.wav",
            "missing.wav",
            "longer.wav",
            "shorter.wav",
            "other.wav",
            "folder.wav",
            "fifo.wav",
            "link.wav",
            "endless.wav",
        ],
    )
    folder = harness.root / FOLDER
    (folder / "missing.wav").unlink()
    (folder / "folder.wav").unlink()
    (folder / "folder.wav").mkdir()
    (folder / "fifo.wav").unlink()
    os.mkfifo(folder / "fifo.wav")
    (folder / "link.wav").unlink()
    (folder / "link.wav").symlink_to(folder / "equal.wav")
    os.truncate(folder / "endless.wav", 2**42)
    with (folder / "longer.wav").open("ab") as file:
        file.write(b"\0")
    body = (folder / "shorter.wav").read_bytes()
    (folder / "shorter.wav").write_bytes(body[:-1])
    (folder / "other.wav").write_bytes(bytes(len(body)))
    found = await findings(harness, queue)
    assert {name: one.verdict for name, one in found.items()} == {
        "equal.wav": "equal",
        "missing.wav": "missing",
        "longer.wav": "changed",
        "shorter.wav": "changed",
        "other.wav": "changed",
        "folder.wav": "not_a_regular_file",
        "fifo.wav": "not_a_regular_file",
        "link.wav": "not_a_regular_file",
        "endless.wav": "changed",
    }
    assert "is a FIFO, not a regular file" in found["fifo.wav"].message
    assert found["endless.wav"].bytes_read <= 1000 + BLOCK, "what is longer than recorded is not read on"
    assert found["equal.wav"].sha256_read == found["equal.wav"].sha256_recorded
    assert (found["shorter.wav"].bytes_read, found["shorter.wav"].bytes_recorded) == (999, 1000)


async def test_every_page_of_a_long_ledger_is_read(
    harness: SessionHarness, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PAGE", 3)
    names = [f"{number}.wav" for number in range(9)]
    await record(harness, queue, names)
    assert sorted(await findings(harness, queue)) == names


async def test_an_empty_ledger_has_nothing_to_find(harness: SessionHarness, queue: Queue) -> None:
    assert await findings(harness, queue) == {}
