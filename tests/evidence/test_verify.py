"""Fixity: every recorded file is read again and held against what was recorded."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from archiver.evidence.verify import Terms, Verification, Verified
from archiver.queue import recorded
from archiver.queue.recorded import ChosenFiles
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


async def _rows(database: object, sql: str, *args: object) -> list[dict[str, Any]]:
    from archiver.postgres.database import Database

    assert isinstance(database, Database)
    async with database.connection() as connection:
        return [dict(row) for row in await connection.fetch(sql, *args)]


async def findings(harness: SessionHarness, queue: Queue) -> dict[str, Verified]:
    found: list[Verified] = []
    await Verification(queue._database, harness.archive.store, Terms()).run(found.append)
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


async def test_every_page_of_many_recordings_is_read(
    harness: SessionHarness, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "PAGE", 3)
    names = [f"{number}.wav" for number in range(9)]
    await record(harness, queue, names)
    assert sorted(await findings(harness, queue)) == names


async def test_where_nothing_is_recorded_nothing_is_found(harness: SessionHarness, queue: Queue) -> None:
    assert await findings(harness, queue) == {}


async def kept(queue: Queue) -> dict[str, str]:
    """What the database remembers: the verdict on each file, by its name."""
    rows = await _rows(queue._database, "SELECT findings FROM archive_findings WHERE source = 'verify'")
    return {found["store_key"].rpartition("/")[2]: found["verdict"] for row in rows for found in row["findings"]}


async def remembered(harness: SessionHarness, queue: Queue, *, bot: str | None = None) -> dict[str, str]:
    terms = Terms(ChosenFiles(bot))
    await Verification(queue._database, harness.archive.store, terms, actor="somebody").run(lambda _file: None)
    return await kept(queue)


async def test_what_is_found_is_remembered_until_it_is_found_equal(harness: SessionHarness, queue: Queue) -> None:
    await record(harness, queue, ["a.wav", "b.wav", "c.wav"])
    folder = harness.root / FOLDER
    bodies = {name: (folder / name).read_bytes() for name in ("a.wav", "b.wav")}
    (folder / "a.wav").unlink()
    (folder / "b.wav").write_bytes(b"other")
    assert await findings(harness, queue), "read only"
    assert await kept(queue) == {}
    assert await remembered(harness, queue) == {"a.wav": "missing", "b.wav": "changed"}
    (folder / "a.wav").write_bytes(bodies["a.wav"])
    assert await remembered(harness, queue) == {"b.wav": "changed"}
    assert await remembered(harness, queue, bot="other") == {"b.wav": "changed"}, "it was not read"
    (folder / "b.wav").write_bytes(bodies["b.wav"])
    assert await remembered(harness, queue) == {}


async def test_a_verify_that_is_interrupted_forgets_nothing(harness: SessionHarness, queue: Queue) -> None:
    await record(harness, queue, ["a.wav", "b.wav"])
    (harness.root / FOLDER / "a.wav").unlink()
    assert await remembered(harness, queue) == {"a.wav": "missing"}
    await _rows(queue._database, "DELETE FROM archived_recordings WHERE file_name = 'a.wav'")
    verification = Verification(queue._database, harness.archive.store, Terms(), actor="somebody")

    def stop(_file: Verified) -> None:
        running.cancel()

    running = asyncio.create_task(verification.run(stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await kept(queue) == {"a.wav": "missing"}


async def test_what_is_recorded_no_more_is_forgotten_when_all_was_read(harness: SessionHarness, queue: Queue) -> None:
    await record(harness, queue, ["a.wav"])
    (harness.root / FOLDER / "a.wav").unlink()
    assert await remembered(harness, queue) == {"a.wav": "missing"}
    await _rows(
        queue._database,
        """INSERT INTO archive_findings (queue_id, source, found_by, findings)
           SELECT queue_id, 'account', 'x', '[]' FROM archive_findings""",
    )
    await _rows(queue._database, "DELETE FROM archived_recordings")
    assert await remembered(harness, queue, bot="other") == {"a.wav": "missing"}
    assert await remembered(harness, queue, bot="bot") == {}
    assert await _rows(queue._database, "SELECT source FROM archive_findings") == [{"source": "account"}]
