"""The schema says what the code says, and migrating is safe."""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
from pathlib import Path

import asyncpg
import pytest

from archiver.errors import DatabaseError, DatabaseTooNew, NotMigrated
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.postgres.migrations import migrations
from archiver.postgres.schema import check_version
from archiver.queue.sql import sql
from archiver.session import OF_A_RECHECK, OF_ONE_ARCHIVED_BEFORE, TRANSITIONS, State
from tests.queue.conftest import QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

IN_PLACE = "-- phase: expand\n-- transaction: none\n-- min_program: 0.1\n"


async def test_every_statement_prepares_and_every_one_is_in_the_list(database: Database) -> None:
    statements = list(sql)
    assert {"claim/sessions", "settle/outcomes", "enqueue/sessions", "upkeep/rescue"} <= {one.name for one in statements}
    for statement in statements:
        async with database.connection() as connection:
            prepared = await connection.prepare(statement.text)
            assert len(prepared.get_parameters()) == len(statement.parameters)


async def test_the_states_of_the_program_are_those_of_the_database(harness: QueueHarness) -> None:
    check = await harness.value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'archive_queue_state'")
    assert set(re.findall(r"'(\w+)'", check)) == set(State)


@pytest.mark.parametrize(
    ("before", "after", "besides"),
    [
        *itertools.product(State, State, ["", "archived_before = true"]),
        *itertools.product([State.CLAIMED, State.UNAVAILABLE], State, ["worker_id = 1"]),  # no other can be held
    ],
)
async def test_the_database_allows_exactly_the_transitions_of_the_program(
    harness: QueueHarness, before: State, after: State, besides: str
) -> None:
    more = {"": {}, "worker_id = 1": OF_A_RECHECK, "archived_before = true": OF_ONE_ARCHIVED_BEFORE}[besides]
    allowed = TRANSITIONS[before] | more.get(before, frozenset())
    await harness.add("s-1")
    move = """UPDATE archive_queue SET state = $1, reason = 'test',
        worker_id = CASE WHEN $1 = 'claimed' THEN 1 END,
        finished_at = CASE WHEN $1 NOT IN ('pending', 'claimed') THEN now() END"""
    async with harness.database.connection() as connection:
        await connection.execute("ALTER TABLE archive_queue DISABLE TRIGGER archive_queue_transition")
        await connection.execute(move, before)
        await connection.execute("ALTER TABLE archive_queue ENABLE TRIGGER archive_queue_transition")
        if besides:
            await connection.execute(f"UPDATE archive_queue SET {besides}")
        if after == before or after in allowed:
            await connection.execute(move, after)
        else:
            with pytest.raises(asyncpg.CheckViolationError, match="cannot become"):
                await connection.execute(move, after)


@pytest.mark.parametrize(
    "wrong",
    [
        "state = 'claimed'",
        "state = 'cancelled', finished_at = now()",
        "state = 'cancelled', reason = 'r'",
        "worker_id = 1",
        "run_at = 'infinity'",
        "priority = 'urgent'",
        "kind = 'fax'",
        "recheck_at = now()",
        "state = 'archived', finished_at = now(), worker_id = 1",
        "state = 'unavailable', reason = 'r', finished_at = now(), recheck_at = 'infinity'",
    ],
)
async def test_a_row_that_contradicts_itself_is_refused(harness: QueueHarness, wrong: str) -> None:
    await harness.add("s-1")
    async with harness.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(f"UPDATE archive_queue SET {wrong}")


async def test_migrating_twice_applies_once(empty_database_url: str) -> None:
    async with Database(empty_database_url) as database:
        assert await migrate(database) == migrations()
        assert await migrate(database) == []
        assert (await check_version(database)).version == len(migrations())


async def test_migrating_in_two_places_at_once_applies_once(empty_database_url: str) -> None:
    async with Database(empty_database_url) as one, Database(empty_database_url) as other:
        applied = await asyncio.gather(migrate(one), migrate(other))
    assert sorted(migration.version for each in applied for migration in each) == [known.version for known in migrations()]


async def test_migrating_leaves_no_lock_behind(empty_database_url: str) -> None:
    async with Database(empty_database_url) as database, database.connection() as connection:
        await migrate(database)
        # Of this database: those of other tests are in the same server.
        locks = """SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database
                   WHERE locktype = 'advisory' AND datname = current_database()"""
        # The server lets go of a connection's locks once it has noticed that it is closed, and tells nobody.
        async with asyncio.timeout(10):
            while await connection.fetchval(locks):  # noqa: ASYNC110  # there is no signal to wait for
                await asyncio.sleep(0.02)


async def test_a_database_that_was_never_migrated_is_told_from_one_that_was(empty_database_url: str) -> None:
    async with Database(empty_database_url) as database:
        with pytest.raises(NotMigrated, match="never migrated") as caught:
            await check_version(database)
        assert "archiver migrate" in caught.value.hint
        with pytest.raises(NotMigrated):
            await database.rows(sql("report/session_counts"))


async def test_a_database_with_fewer_migrations_is_told(harness: QueueHarness) -> None:
    await harness.fetch("DELETE FROM archive_migrations")
    with pytest.raises(NotMigrated, match="at version 0"):
        await check_version(harness.database)


async def test_a_newer_database_is_left_alone(harness: QueueHarness) -> None:
    future = len(migrations()) + 1
    await harness.fetch("INSERT INTO archive_migrations VALUES ($1, 'future', repeat('0', 64))", future)
    with pytest.raises(DatabaseTooNew, match=f"at version {future}"):
        await check_version(harness.database)
    with pytest.raises(DatabaseTooNew):
        await migrate(harness.database)


async def test_a_migration_that_was_edited_after_it_was_applied_is_noticed(harness: QueueHarness) -> None:
    await harness.fetch("UPDATE archive_migrations SET sha256 = repeat('0', 64)")
    with pytest.raises(DatabaseError, match="another edition"):
        await check_version(harness.database)
    with pytest.raises(DatabaseError, match="0001_queue was applied in another edition"):
        await migrate(harness.database)


async def test_a_migration_that_fails_leaves_nothing(empty_database_url: str) -> None:
    async with Database(empty_database_url) as database:
        async with database.connection() as connection:
            await connection.execute("CREATE TABLE archive_workers ()")
        with pytest.raises(DatabaseError, match="already exists"):
            await migrate(database)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT to_regclass('archive_bots')") is None
            await connection.execute("DROP TABLE archive_workers")
        assert len(await migrate(database)) == len(migrations())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations that there are, for a test to add others."""
    shutil.copytree(Path(__file__).parents[2] / "migrations", tmp_path / "migrations")
    return tmp_path / "migrations"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-- phase: expand\n",
        "-- min_program: 0.1\n",
        "-- phase: later\n-- min_program: 0.1\n",
        "-- phase: expand\n-- min_program: 1\n",
        "-- phase: expand\n-- transaction: some\n-- min_program: 0.1\n",
        "-- What it does.\n-- phase: expand\n-- min_program: 0.1\n",
    ],
)
def test_a_migration_without_a_valid_header_is_refused(folder: Path, header: str) -> None:
    (folder / "9999_later.sql").write_text(header + "SELECT 1;\n")
    with pytest.raises(DatabaseError, match=r"9999_later\.sql has no valid header") as caught:
        migrations(folder)
    assert "-- min_program: X.Y" in caught.value.hint


async def test_what_a_header_says_is_kept_with_its_migration(harness: QueueHarness) -> None:
    kept = await harness.fetch("SELECT version, phase, transactional, min_program FROM archive_migrations ORDER BY version")
    assert [(row["phase"], row["transactional"], row["min_program"]) for row in kept] == [
        (known.header.phase, known.header.transactional, str(known.header.min_program)) if known.header else (None, None, None)
        for known in migrations()
    ]
    assert [row["version"] for row in kept if row["phase"] is None] == [1, 2, 3, 4, 5, 6]


async def test_an_index_is_built_without_a_transaction_once_by_two_while_others_write(
    harness: QueueHarness, folder: Path
) -> None:
    build = "DROP INDEX CONCURRENTLY IF EXISTS built;\nCREATE INDEX CONCURRENTLY built ON archive_queue (enqueued_at);\n"
    (folder / f"{len(migrations()) + 1:04d}_built.sql").write_text(IN_PLACE + build)
    async with Database(harness.database.dsn) as other:
        applied = await asyncio.gather(migrate(harness.database, folder), migrate(other, folder))
    assert [migration.name for each in applied for migration in each] == ["built"]
    assert await harness.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built'::regclass")
    assert await harness.value("SELECT transactional FROM archive_migrations ORDER BY version DESC LIMIT 1") is False
    assert await migrate(harness.database, folder) == []


async def test_a_migration_without_a_transaction_that_breaks_off_is_run_again_from_its_start(
    harness: QueueHarness, folder: Path
) -> None:
    file = folder / f"{len(migrations()) + 1:04d}_built.sql"
    build = "DROP INDEX CONCURRENTLY IF EXISTS built;\nCREATE UNIQUE INDEX CONCURRENTLY built ON archive_queue (bot);\n"
    file.write_text(IN_PLACE + build)
    await harness.add("s-1", "s-2")
    with pytest.raises(DatabaseError, match="could not create unique index"):
        await migrate(harness.database, folder)
    assert not await harness.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built'::regclass")
    assert (await check_version(harness.database)).version == len(migrations())
    await harness.fetch("DELETE FROM archive_queue WHERE session_id = 's-1'")
    assert [migration.name for migration in await migrate(harness.database, folder)] == ["built"]
    assert await harness.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built'::regclass")


def test_a_body_of_a_function_is_refused_without_a_transaction(folder: Path) -> None:
    """Its statements are told apart by their ends alone."""
    (folder / "9999_later.sql").write_text(IN_PLACE + "DO $do$ BEGIN NULL;\nEND $do$;\n")
    with pytest.raises(DatabaseError, match="a function's body, but no transaction"):
        migrations(folder)
