"""The roll-up equals the rows, whoever changes them; test_model.py holds that after every step of random histories."""

from __future__ import annotations

import asyncio
import random
import string
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.outcome import Archived, Failed, Retry
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.queue.counts import Counts
from archiver.queue.search import Chosen, People, Search
from archiver.session import Attempt, State
from tests.queue.conftest import QueueHarness, stored_file
from tests.queue.test_strangers import until_0006

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python


async def counted(harness: QueueHarness) -> dict[tuple[str, str], tuple[int, int, int, int]]:
    """Sessions, calls, files and bytes by state and reason, as readers see them."""
    sums = ", ".join(f"sum({name})::int AS {name}" for name in ("sessions", "calls", "files", "bytes"))
    rows = await harness.fetch(f"SELECT state, reason, {sums} FROM archive_counts GROUP BY state, reason")
    return {(row["state"], row["reason"]): (row["sessions"], row["calls"], row["files"], row["bytes"]) for row in rows}


async def assert_exact(harness: QueueHarness) -> None:
    assert await Counts(harness.database).recount(mend=False) == []


async def test_files_go_with_their_session(harness: QueueHarness) -> None:
    """Those that a statement stores, and those that it had before."""
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file(1, "k-1")], calls=2), Retry("api_unreachable"))
    assert await counted(harness) == {("pending", "api_unreachable"): (1, 2, 1, 44)}
    await harness.make_due()
    (again,) = await harness.claim(await harness.worker())
    assert await counted(harness) == {("claimed", "api_unreachable"): (1, 2, 1, 44)}
    # One file a second time, which changes nothing, and a new one.
    files = [stored_file(1, "k-1"), stored_file(2, "k-2")]
    await harness.settle(Attempt(again, files, calls=1), Archived())
    assert await counted(harness) == {("archived", ""): (1, 3, 2, 88)}
    await harness.operators.retry(actor="me")
    assert await counted(harness) == {("pending", ""): (1, 3, 2, 88)}
    (third,) = await harness.claim(await harness.worker())
    missing = Attempt(third, [stored_file(3, "k-3")], missing={(9, "x.wav")})
    await harness.settle(missing, Failed("conflict"))
    assert await counted(harness) == {("failed", "partial"): (1, 3, 3, 132)}
    await assert_exact(harness)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE archive_queue SET state = 'cancelled', reason = 'by hand', finished_at = now() WHERE session_id = 's-1'",
        "UPDATE archive_queue SET bot = 'other', kind = 'voicemail', archive_date = now() - interval '400 days'",
        "UPDATE archive_queue SET priority = 'high'",
        "DELETE FROM archive_queue WHERE session_id = 's-2'",
        "INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', 's-9', 'fax'), ('bot', 'in valid', 'recording')",
        """INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name,
                                         queue_id, seconds)
        SELECT bot, session_id, kind, 1, 'f', 'k', 5, repeat('0', 64), 'f', id, 1.2345 FROM archive_queue""",
    ],
)
async def test_what_others_do_to_the_rows_is_counted(harness: QueueHarness, statement: str) -> None:
    await harness.add("s-1", "s-2")
    await Counts(harness.database).fold()
    await harness.fetch(statement)
    await assert_exact(harness)
    if "archived_recordings" in statement:
        await harness.fetch("UPDATE archived_recordings SET bytes = 7, seconds = 3 WHERE session_id = 's-1'")
        await assert_exact(harness)
        await harness.fetch("DELETE FROM archived_recordings")
        await assert_exact(harness)


async def test_what_is_undone_is_not_counted(harness: QueueHarness) -> None:
    await harness.add("s-1")
    async with harness.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-2')")
        async with connection.transaction():  # and within a savepoint
            await connection.execute("UPDATE archive_queue SET priority = 'low'")
        await transaction.rollback()
    assert await counted(harness) == {("pending", ""): (1, 0, 0, 0)}
    await assert_exact(harness)


async def test_rows_copied_in_are_counted(harness: QueueHarness) -> None:
    async with harness.database.connection() as connection:
        records = [("bot", f"s-{number}") for number in range(50)]
        await connection.copy_records_to_table("archive_queue", records=records, columns=["bot", "session_id"])
    assert await counted(harness) == {("pending", ""): (50, 0, 0, 0)}


async def test_many_fold_at_once_and_nothing_is_lost(harness: QueueHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archiver.queue.counts.MAX_CHANGES", 7)
    for number in range(60):
        await harness.add(f"s-{number}", bot=f"bot-{number % 3}")
    counts = Counts(harness.database)

    async def add() -> None:
        for number in range(60, 90):
            await harness.add(f"s-{number}", bot=f"bot-{number % 3}")

    adding = asyncio.create_task(add())
    folded = sum(await asyncio.gather(*(counts.fold() for _ in range(4))))
    await adding
    assert folded + await counts.fold() == 90
    assert await harness.value("SELECT count(*) FROM archive_rollup_changes") == 0
    assert await harness.value("SELECT sum(sessions) FROM archive_rollup") == 90
    await assert_exact(harness)


async def test_files_go_by_where_their_session_is_once_nobody_else_moves_it(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file()]), Archived())
    async with harness.locked("DELETE FROM archived_recordings"):
        retried = asyncio.create_task(harness.operators.retry(actor="me", states=[State.ARCHIVED]))
        await harness.blocked()
    assert await retried == ["s-1"]
    await assert_exact(harness)


async def test_rows_that_count_nothing_go(harness: QueueHarness) -> None:
    session = await harness.claim_one()
    await harness.settle(Attempt(session, [stored_file()]), Archived())
    counts = Counts(harness.database)
    await counts.fold()
    await counts.remove_empty()
    assert await harness.value("SELECT array_agg(state) FROM archive_rollup") == ["archived"]
    await assert_exact(harness)


async def test_counts_that_are_wrong_are_told_and_mended(harness: QueueHarness) -> None:
    await harness.add("s-1", "s-2")
    await harness.fetch("ALTER TABLE archive_queue DISABLE TRIGGER archive_queue_count_updated")
    await harness.fetch("UPDATE archive_queue SET priority = 'low' WHERE session_id = 's-1'")
    await harness.fetch("ALTER TABLE archive_queue ENABLE TRIGGER archive_queue_count_updated")
    counts = Counts(harness.database)
    told = await counts.recount(mend=False)
    assert {(each.priority, each.sessions) for each in told} == {("normal", -1), ("low", 1)}
    assert await counts.recount(mend=True) == told
    assert await counts.recount(mend=True) == []
    await harness.fetch("TRUNCATE archive_rollup, archive_rollup_changes")
    await counts.recount(mend=True)
    await assert_exact(harness)


async def test_a_recount_holds_nobody_up_and_counts_nothing_twice(harness: QueueHarness) -> None:
    """A session is enqueued, and another one not yet committed, while the recount reads."""
    await harness.add("s-1")
    await harness.fetch("TRUNCATE archive_rollup, archive_rollup_changes")
    connection: Any = await asyncpg.connect(harness.database.dsn)
    try:
        async with connection.transaction():
            await connection.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-2')")
            (difference,) = await Counts(harness.database).recount(mend=True)
            assert difference.sessions == 1
    finally:
        await connection.close()
    assert await counted(harness) == {("pending", ""): (2, 0, 0, 0)}
    await assert_exact(harness)


async def test_what_was_there_before_an_upgrade_is_counted(empty_database_url: str, tmp_path: Path) -> None:
    """Also what no index could hold as it is: texts were bounded only later."""
    async with Database(empty_database_url) as database, database.connection() as connection:
        await migrate(database, until_0006(tmp_path))
        user_id = "".join(random.Random(1).choices(string.ascii_letters, k=6000))
        insert = "INSERT INTO archive_queue (bot, session_id, user_id) SELECT 'bot', 's-' || n, $1 FROM generate_series(1, 20) n"
        await connection.execute(insert, user_id)
        await connection.execute("UPDATE archive_queue SET state = 'claimed', worker_id = 1, calls = 2 WHERE id <= 10")
        ended = "UPDATE archive_queue SET state = 'archived', worker_id = NULL, finished_at = now() WHERE id <= 5"
        await connection.execute(ended)
        await connection.execute(
            """INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name,
                                                queue_id)
               SELECT bot, session_id, kind, 1, 'f', 'k', 5, repeat('0', 64), 'f', id FROM archive_queue WHERE id <= 5"""
        )
        await migrate(database)
        assert await Counts(database).recount(mend=False) == []
        assert await connection.fetchval("SELECT sum(files)::int FROM archive_counts WHERE state = 'archived'") == 5
        found = Search(database).find(Chosen(), People(user_id=user_id), limit=None)
        assert len([each async for each in found]) == 20


async def test_a_producer_accepts_nothing(harness: QueueHarness) -> None:
    await harness.add("in valid", accepted_by="me", accept_reason="mine")
    row = await harness.row("in valid")
    assert (row["state"], row["accepted_at"], row["accepted_by"], row["accept_reason"]) == ("failed", None, None, None)
