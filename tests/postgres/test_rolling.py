"""Programs and databases of neighbouring versions work together, and migrating lets everybody go on."""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from archiver.errors import DatabaseError, DatabaseTooNew, DatabaseUnreachable, NotMigrated
from archiver.postgres import lock_holders
from archiver.postgres.database import Database
from archiver.postgres.features import LOOK_AGAIN_SECONDS, Feature, Features
from archiver.postgres.migrate import migrate
from archiver.postgres.migrations import PROGRAM, Release, migrations
from archiver.postgres.schema import check_version
from archiver.postgres.statements import Statement
from archiver.queue.sql import sql
from tests.queue.conftest import QueueHarness

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

KNOWN = len(migrations())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The migrations that there are, for a test to add others."""
    shutil.copytree(Path(__file__).parents[2] / "migrations", tmp_path / "migrations")
    return tmp_path / "migrations"


@pytest.fixture
async def producer(harness: QueueHarness) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Another program's connection to the same database."""
    connection = await asyncpg.connect(harness.database.dsn, server_settings={"application_name": "crm-export"})
    yield connection
    await connection.close()


def add(folder: Path, number: int, sql: str, *header: str) -> None:
    """One more migration, `number` after those that there are."""
    lines = [f"-- {line}\n" for line in ("phase: expand", *header)]
    (folder / f"{KNOWN + number:04d}_later_{number}.sql").write_text("".join(lines) + sql + "\n")


async def applied_by_later(harness: QueueHarness, *min_programs: str | None) -> None:
    """What later programs' migrations leave behind, with the oldest program that works with each."""
    for version, needed in enumerate(min_programs, KNOWN + 1):
        await harness.fetch(
            "INSERT INTO archive_migrations (version, name, sha256, phase, min_program) VALUES ($1, 'later', $2, 'expand', $3)",
            version,
            hashlib.sha256(str(version).encode()).hexdigest(),
            needed,
        )


@pytest.mark.parametrize(
    ("min_programs", "program", "needed"),
    [
        (["0.2"], "0.2", None),
        (["0.2", "0.2"], "0.3", None),
        (["0.9"], "0.10", None),
        (["0.10"], "0.9", "0.10"),
        (["0.3"], "0.2", "0.3"),
        (["0.3", "0.2"], "0.2", "0.3"),
        (["1.0"], "0.99", "1.0"),
        (["0.9"], "1.0", None),
        ([None], "0.2", "does not say which"),
        (["0.2.1"], "0.2", "does not say which"),
        (["0.2\n"], "0.2", "does not say which"),
        (["-1.0"], "0.2", "does not say which"),
        (["٠.٢"], "0.2", "does not say which"),
    ],
)
async def test_a_later_database_is_worked_with_if_each_of_its_migrations_permits_it(
    harness: QueueHarness, min_programs: list[str | None], program: str, needed: str | None
) -> None:
    await applied_by_later(harness, *min_programs)
    release = Release.parse(program)
    assert release is not None
    if needed is None:
        schema = await check_version(harness.database, program=release)
        assert (schema.version, schema.known) == (KNOWN + len(min_programs), KNOWN)
        assert f"at version {schema.version}, newer than this program ({KNOWN})" in schema.notice
        assert await migrate(harness.database, program=release) == []
        return
    for attempt in (check_version, migrate):
        with pytest.raises(DatabaseTooNew) as caught:
            await attempt(harness.database, program=release)
        for word in (f"at version {KNOWN + len(min_programs)}", needed, f"archiver {program}", f"knows {KNOWN}"):
            assert word in str(caught.value)
        assert "upgrade this archiver" in caught.value.hint


async def test_a_database_in_whose_history_a_migration_is_missing_is_refused(harness: QueueHarness) -> None:
    await applied_by_later(harness, "0.2", "0.2")
    await harness.fetch("DELETE FROM archive_migrations WHERE version = $1", KNOWN + 1)
    for attempt in (check_version, migrate):
        with pytest.raises(DatabaseError, match=rf"has no migration {KNOWN + 1:04d}, but {KNOWN + 2:04d}_later"):
            await attempt(harness.database)
    await harness.fetch("DELETE FROM archive_migrations WHERE version IN (3, $1)", KNOWN + 2)
    with pytest.raises(DatabaseError, match="has no migration 0003"):
        await check_version(harness.database)


async def test_an_earlier_database_is_worked_with_as_long_as_the_program_does_without(
    harness: QueueHarness, folder: Path
) -> None:
    add(folder, 1, "SELECT 1;", "min_program: 0.2", "required_by: 0.10")
    add(folder, 2, "SELECT 1;", "min_program: 0.2", "required_by: 0.3")
    schema = await check_version(harness.database, folder, Release(0, 2))
    assert schema.missing == (f"{KNOWN + 1:04d}_later_1", f"{KNOWN + 2:04d}_later_2")
    assert f"does without {schema.missing[0]}" in schema.notice
    assert "archiver migrate" in schema.hint
    with capture_logs() as lines:
        schema.log()
    assert [(line["event"], line["database"], line["program"]) for line in lines] == [("database_older", KNOWN, KNOWN + 2)]
    with pytest.raises(NotMigrated, match=f"at version {KNOWN}, this program needs {KNOWN + 2}"):
        await check_version(harness.database, folder, Release(0, 9))
    add(folder, 2, "SELECT 1;", "min_program: 0.2")
    with pytest.raises(NotMigrated, match=f"this program needs {KNOWN + 2}"):
        await check_version(harness.database, folder, Release(0, 2))


async def test_two_programs_of_different_age_that_migrate_at_once_apply_each_once(empty_database_url: str, folder: Path) -> None:
    add(folder, 1, "CREATE TABLE made_later ();", "min_program: 0.2")
    add(
        folder, 2, "CREATE INDEX CONCURRENTLY made_later_built ON archive_queue (epoch);", "transaction: none", "min_program: 0.2"
    )
    async with Database(empty_database_url) as older, Database(empty_database_url) as newer:
        by_older, by_newer = await asyncio.gather(migrate(older), migrate(newer, folder))
        versions = sorted(migration.version for migration in by_older + by_newer)
        assert versions == list(range(1, KNOWN + 3))
        assert (await check_version(older)).version == KNOWN + 2
        assert (await check_version(newer, folder)).notice == ""


async def test_the_header_is_read_with_and_without_what_is_optional(folder: Path) -> None:
    add(folder, 1, "SELECT 1;", "min_program: 0.2", "required_by: 0.3")
    add(folder, 2, "SELECT 1;", "transaction: none", "required_by: 0.10", "min_program: 0.2")
    headers = [migration.header for migration in migrations(folder)[-2:]]
    assert [header and header.required_by for header in headers] == [Release(0, 3), Release(0, 10)]
    add(folder, 3, "SELECT 1;", "min_program: 0.2", "required_by: soon")
    with pytest.raises(DatabaseError, match="has no valid header"):
        migrations(folder)


async def test_what_came_with_a_migration_is_there_once_that_is_looked_for_again(
    harness: QueueHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = Features(harness.database)
    await harness.fetch(f"DROP TABLE IF EXISTS {', '.join(Feature)}")
    assert not await features.has(Feature.FIGURES)
    await harness.fetch(f"CREATE TABLE {Feature.FIGURES} ()")
    assert not await features.has(Feature.FIGURES)
    assert LOOK_AGAIN_SECONDS <= 60
    await features.look()
    assert await features.has(Feature.FIGURES)
    assert not await features.has(Feature.NOTIFICATIONS)


async def test_a_migration_leaves_the_queue_for_a_lock_and_comes_again_until_it_has_it(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record]
) -> None:
    """Behind one that waits for a table, everybody would wait who wants to use it."""
    add(folder, 1, "ALTER TABLE archive_queue ADD COLUMN later integer;", "min_program: 0.2")
    pid = producer.get_server_pid()
    blocking = producer.transaction()
    await blocking.start()
    await producer.execute("SELECT FROM archive_queue")
    with capture_logs() as lines:
        migrating = asyncio.create_task(migrate(harness.database, folder))
        try:
            async with asyncio.timeout(30):
                while len([line for line in lines if line["event"] == "migration_lock_awaited"]) < 2:
                    await harness.add(f"s-{len(lines)}")  # within the statement's own limit, again and again
        finally:
            await blocking.rollback()
        assert [migration.name for migration in await migrating] == ["later_1"]
    told = next(line for line in lines if line["event"] == "migration_lock_awaited")
    assert told["migration"] == f"{KNOWN + 1:04d}_later_1"
    assert told["held_by"].startswith(f"pid {pid} (crm-export, since 20")
    assert await harness.value("SELECT count(later) FROM archive_queue") == 0


async def test_a_lock_that_is_not_to_be_had_ends_migrating_with_who_has_it(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record]
) -> None:
    add(folder, 1, "CREATE TABLE later (); ALTER TABLE archive_queue ADD COLUMN later integer;", "min_program: 0.2")
    async with producer.transaction():
        await producer.execute("SELECT FROM archive_queue")
        with pytest.raises(DatabaseError, match="got no lock for 0 s: it is held by pid") as caught:
            await migrate(harness.database, folder, lock_seconds=0)
    assert f"pid {producer.get_server_pid()} (crm-export, since " in caught.value.message
    assert "archiver migrate" in caught.value.hint
    assert await harness.value("SELECT to_regclass('later')") is None
    assert (await check_version(harness.database)).version == KNOWN
    assert len(await migrate(harness.database, folder)) == 1


async def test_a_migration_may_set_another_limit_for_its_locks(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record]
) -> None:
    add(folder, 1, "SET LOCAL lock_timeout = '1ms'; ALTER TABLE archive_queue ADD COLUMN later integer;", "min_program: 0.2")
    async with producer.transaction():
        await producer.execute("SELECT FROM archive_queue")
        with pytest.raises(DatabaseError, match="somebody who is gone since"):
            await migrate(harness.database, folder, lock_seconds=0)


@pytest.mark.parametrize("building", ["IF NOT EXISTS built", "built"])
async def test_an_index_whose_building_was_broken_off_is_dropped_before_it_is_built(
    harness: QueueHarness, folder: Path, building: str
) -> None:
    await harness.add("s-1", "s-2")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with harness.database._pool.acquire() as connection:  # type: ignore[union-attr]
            await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY built ON archive_queue (bot)")
    assert await harness.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built'::regclass") is False
    add(folder, 1, f"create index CONCURRENTLY {building}\n    ON archive_queue (bot);", "transaction: none", "min_program: 0.2")
    with capture_logs() as lines:
        assert len(await migrate(harness.database, folder)) == 1
    assert [line["index"] for line in lines if line["event"] == "broken_index_dropped"] == ["built"]
    assert await harness.value("SELECT indisvalid AND NOT indisunique FROM pg_index WHERE indexrelid = 'built'::regclass")


async def test_a_deadlock_with_others_is_tried_again(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The one that closes the circle gives way: here the migration, once it is let on to its second table."""
    add(
        folder,
        1,
        "SET LOCAL lock_timeout = 0; ALTER TABLE archive_events ADD COLUMN later integer; "
        "SELECT pg_advisory_xact_lock(42); ALTER TABLE archive_queue ADD COLUMN later integer;",
        "min_program: 0.2",
    )
    async with harness.database.connection() as gate:

        async def waited_for(condition: str) -> None:
            async with asyncio.timeout(10):
                looking = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND {condition}"
                while not await gate.fetchval(looking):  # noqa: ASYNC110  # there is no signal to wait for
                    await asyncio.sleep(0.01)

        await gate.execute("SELECT pg_advisory_lock(42)")
        async with producer.transaction():
            await producer.execute("SET LOCAL deadlock_timeout = '1h'; LOCK TABLE archive_queue")
            migrating = asyncio.create_task(migrate(harness.database, folder))
            await waited_for("locktype = 'advisory'")
            reading = asyncio.create_task(producer.execute("SELECT FROM archive_events"))
            await waited_for("relation = 'archive_events'::regclass")
            await gate.execute("SELECT pg_advisory_unlock(42)")
            await reading
        assert len(await migrating) == 1


def test_this_program_is_of_the_release_that_its_version_says() -> None:
    from archiver import __version__

    assert __version__.startswith(f"{PROGRAM}.")


async def test_no_statement_returns_anything_else_when_a_table_gets_a_column(harness: QueueHarness) -> None:
    """Else the server would refuse those that running workers have prepared, and rows would not fit what takes them."""
    async with harness.database.connection() as connection:
        before = {one.name: (await connection.prepare(one.text)).get_attributes() for one in sql}
        tables = await connection.fetch("SELECT oid::regclass AS name FROM pg_class WHERE relname ~ '^archive' AND relkind = 'r'")
        assert len(tables) > 10
        for table in tables:
            await connection.execute(f"ALTER TABLE {table['name']} ADD COLUMN from_a_later_release integer")
    async with Database(harness.database.dsn) as later, later.connection() as connection:
        after = {one.name: (await connection.prepare(one.text)).get_attributes() for one in sql}
    named = {name: [(each.name, each.type.oid) for each in attributes] for name, attributes in before.items()}
    assert named == {name: [(each.name, each.type.oid) for each in attributes] for name, attributes in after.items()}
    assert not [name for name, attributes in before.items() for each in attributes if each.type.kind == "composite"]


async def test_what_was_prepared_before_a_table_changed_is_run_again(harness: QueueHarness) -> None:
    async with Database(harness.database.dsn, pool_size=1) as database:
        look = Statement.parse("look", "SELECT * FROM archive_bots")
        await harness.fetch("INSERT INTO archive_bots (name) VALUES ('one')")
        assert len(await database.rows(look)) == 1
        await harness.fetch("ALTER TABLE archive_bots ADD COLUMN later integer DEFAULT 7")
        assert (await database.rows(look))[0]["later"] == 7
        await harness.fetch("ALTER TABLE archive_bots ALTER COLUMN later TYPE text")
        with pytest.raises(DatabaseUnreachable, match="tables were changed"):
            async with database.transaction() as run:
                await run(look)
        async with database.transaction() as run:
            assert (await run(look))[0]["later"] == "7"


async def test_migrating_was_killed_while_the_server_built_an_index(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record]
) -> None:
    """The server hears of nobody's death in the middle of a statement: what it still builds is waited for, and built again."""
    statement = "CREATE INDEX CONCURRENTLY IF NOT EXISTS built ON archive_queue (epoch);"
    add(folder, 1, statement, "transaction: none", "min_program: 0.2")
    await harness.add("s-1", "s-2")
    killed = await asyncpg.connect(harness.database.dsn)
    async with producer.transaction(isolation="repeatable_read"):
        await producer.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-3')")
        building = asyncio.create_task(killed.execute(statement))
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND wait_event_type = 'Lock'"
        async with asyncio.timeout(10):
            while not await harness.value(waiting, statement):  # noqa: ASYNC110  # there is no signal to wait for
                await asyncio.sleep(0.01)
        killed.terminate()
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await building
        migrating = asyncio.create_task(migrate(harness.database, folder))
        async with asyncio.timeout(10):
            waits = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^DROP INDEX CONCURRENTLY' AND wait_event_type = 'Lock'"
            while not await harness.value(waits):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [migration.name for migration in await migrating] == ["later_1"]
    assert await harness.value("SELECT indisvalid FROM pg_index WHERE indexrelid = 'built'::regclass")


async def test_a_package_that_is_replaced_under_a_program_changes_nothing_for_it() -> None:
    first = migrations()
    first.append(first[-1])  # a list of the caller's own
    assert len(migrations()) == KNOWN
    assert migrations()[0] is first[0]


async def test_an_index_that_waits_for_an_open_transaction_says_so(
    harness: QueueHarness, folder: Path, producer: asyncpg.Connection[asyncpg.Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_holders, "REPORT_AFTER_SECONDS", 0.1)
    add(folder, 1, "CREATE INDEX CONCURRENTLY built ON archive_queue (epoch);", "transaction: none", "min_program: 0.2")
    with capture_logs() as lines:
        async with producer.transaction():
            await producer.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')")
            migrating = asyncio.create_task(migrate(harness.database, folder))
            async with asyncio.timeout(10):
                while not lines:  # noqa: ASYNC110  # there is no signal to wait for
                    await asyncio.sleep(0.01)
            await harness.add("s-2")
        assert len(await migrating) == 1
    assert [line["held_by"].split(",")[0] for line in lines[:1]] == [f"pid {producer.get_server_pid()} (crm-export"]


async def test_every_feature_comes_with_a_migration_that_programs_of_this_release_do_without(database: Database) -> None:
    features = Features(database)
    for feature in Feature:
        assert await features.has(feature)
        [migration] = [each for each in migrations() if re.search(rf"^CREATE (TABLE|VIEW) {feature}\b", each.sql, re.MULTILINE)]
        assert not migration.needed_by(PROGRAM), f"{migration.file_name} needs required_by, or nobody has to ask for it"
