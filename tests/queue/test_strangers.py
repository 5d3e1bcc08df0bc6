"""What roles of the database may do that are not its owner: real logins, with the rights that they have in earnest."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from archiver.postgres.database import Database
from archiver.postgres.embedded.server import embedded_postgres
from archiver.postgres.migrate import migrate
from archiver.postgres.migrations import migrations
from archiver.queue.operators import Operators
from archiver.queue.sessions import NewSession, Queue
from archiver.queue.sql import sql
from archiver.session import MAX_METADATA, MAX_USER_ID, State
from tests.conftest import RETRY
from tests.queue.conftest import QueueHarness, ids

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

MONTH = timedelta(days=30)
INSERT = "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1) ON CONFLICT DO NOTHING"
COLUMNS = "bot, session_id, kind, user_id, started_at, ended_at, priority, run_at, metadata"
TRIGGERS = {
    "archive_admit": "BEFORE INSERT ON loot FOR EACH ROW",
    "archive_enqueued": "AFTER INSERT ON loot REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT",
    "archive_number": "BEFORE INSERT ON loot FOR EACH ROW",
}
LOOT = {
    "archive_admit": "INSERT INTO loot (bot, session_id, priority) VALUES ('bot', 's-1', 'high')",
    "archive_enqueued": "INSERT INTO loot (id) VALUES (ROW(1))",
    "archive_number": "INSERT INTO loot (id) VALUES (ROW(1))",
}
_numbers = itertools.count()


def until_0006(tmp_path: Path) -> Path:
    """The migrations of the version before these."""
    before = tmp_path / "before"
    shutil.copytree(Path(__file__).parents[2] / "migrations", before)
    for later in sorted(before.iterdir())[6:]:
        later.unlink()
    return before


@asynccontextmanager
async def login(database_url: str, *grants: str, options: str = "") -> AsyncIterator[tuple[str, Any]]:
    """A role that may log in, with these rights alone: its name, and a connection of its own."""
    there = urlsplit(database_url)
    name = f"login_{there.path[1:]}_{next(_numbers)}"
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'pw' {options}")
        for grant in grants:
            await owner.execute(f"GRANT {grant} TO {name}")
        connection = await asyncpg.connect(there._replace(netloc=f"{name}:pw@{there.hostname}:{there.port}").geturl())
        try:
            yield name, connection
        finally:
            await connection.close()
    finally:
        await owner.execute(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")
        await owner.close()


async def hang(attacker: Any, name: str, function: str) -> None:
    """A table of the attacker's, with a column that runs their code when it is written or read, and a trigger of ours."""
    columns = {
        "archive_admit": """id bigint, bot text, session_id text, kind pg_temp.trap, user_id text, started_at timestamptz,
            ended_at timestamptz, priority text, run_at timestamptz, metadata jsonb, state text, reason text, detail jsonb,
            archive_date timestamptz, enqueued_at timestamptz, claimed_at timestamptz, first_asked_at timestamptz,
            finished_at timestamptz, worker_id bigint, epoch bigint, failures integer, checks integer, crashes integer,
            calls integer, files integer, listed_at timestamptz, recheck_at timestamptz, rechecks integer,
            recheck_tries integer, last_asked_at timestamptz, archived_before boolean""",
        "archive_enqueued": "id pg_temp.sly, priority text, state text, reason text, detail jsonb",
        "archive_number": "id pg_temp.sly, started_at timestamptz, archive_date timestamptz, priority text, enqueued_by text",
    }
    await attacker.execute(f"""
        CREATE FUNCTION pg_temp.rise() RETURNS void LANGUAGE plpgsql AS $$
        BEGIN EXECUTE 'ALTER ROLE {name} SUPERUSER'; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;
        CREATE FUNCTION pg_temp.mine(value text) RETURNS boolean LANGUAGE sql AS 'SELECT true FROM pg_temp.rise()';
        CREATE DOMAIN pg_temp.trap AS text CHECK (pg_temp.mine(VALUE));
        CREATE TYPE pg_temp.sly AS (n bigint);
        CREATE FUNCTION pg_temp.number(value pg_temp.sly) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint FROM pg_temp.rise()';
        CREATE CAST (pg_temp.sly AS bigint) WITH FUNCTION pg_temp.number(pg_temp.sly) AS ASSIGNMENT;
        CREATE TEMP TABLE loot ({columns[function]});
        CREATE TRIGGER hung {TRIGGERS[function]} EXECUTE FUNCTION public.{function}()""")


@pytest.mark.parametrize("function", TRIGGERS)
async def test_nobody_who_may_log_in_hangs_a_trigger_of_ours_on_a_table_of_theirs(harness: QueueHarness, function: str) -> None:
    async with login(harness.database.dsn) as (name, attacker):
        refused = ""
        try:
            await hang(attacker, name, function)
            await attacker.execute(LOOT[function])
        except asyncpg.InsufficientPrivilegeError as error:
            refused = str(error)
        assert not await harness.value("SELECT rolsuper FROM pg_roles WHERE rolname = $1", name)
        assert f"permission denied for function public.{function}" in refused


@pytest.mark.parametrize("function", TRIGGERS)
async def test_one_that_was_hung_before_refuses_the_table(harness: QueueHarness, function: str) -> None:
    async with login(harness.database.dsn, f"EXECUTE ON FUNCTION {function}()") as (name, attacker):
        await hang(attacker, name, function)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=f"{function} serves archive_queue alone"):
            await attacker.execute(LOOT[function])
        assert not await harness.value("SELECT rolsuper FROM pg_roles WHERE rolname = $1", name)
    assert await harness.fetch("SELECT FROM archive_history") == []


async def test_better_fitting_functions_of_others_are_not_taken(harness: QueueHarness) -> None:
    """In a schema of a database that is old enough everybody may create."""
    async with login(harness.database.dsn, "CREATE ON SCHEMA public", "INSERT ON archive_queue") as (name, attacker):
        await attacker.execute(f"""
            CREATE FUNCTION public.jsonb_build_object(a text, b jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
            BEGIN EXECUTE 'ALTER ROLE {name} SUPERUSER'; RETURN '{{}}'; END $$""")
        await attacker.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', repeat('x', 300))")
        assert not await harness.value("SELECT rolsuper FROM pg_roles WHERE rolname = $1", name)
    assert (await harness.fetch("SELECT state FROM archive_queue"))[0]["state"] == "failed"


FUNCTIONS = """
    SELECT p.proname, p.prosecdef, has_function_privilege('public', p.oid, 'EXECUTE') AS public, p.proconfig
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = current_schema() AND (p.prosecdef OR has_function_privilege('public', p.oid, 'EXECUTE')) ORDER BY 1"""


async def assert_closed(connection: Any) -> None:
    found = [tuple(row.values()) for row in await connection.fetch(FUNCTIONS)]
    path = "search_path=pg_catalog, pg_temp"
    assert found == [
        ("archive_admit", True, False, [path, "enable_seqscan=off"]),
        ("archive_count_files", True, False, [path]),
        ("archive_count_sessions", True, False, [path]),
        ("archive_enqueue", True, False, [path, "enable_seqscan=off", "jit=off"]),
        ("archive_enqueued", True, False, [path]),
        ("archive_lock_sessions", True, False, [path]),
        ("archive_look_for_put_off", True, False, [path, "enable_seqscan=off"]),
        ("archive_number", True, False, [path]),
        (
            "archive_ready_depth",
            True,
            False,
            [path, *(f"enable_{each}=off" for each in ("seqscan", "bitmapscan", "sort")), "jit=off"],
        ),
        ("archive_record_refusal", True, False, [path]),
    ]


async def test_these_functions_alone_run_as_the_owner_and_none_is_everybodys(harness: QueueHarness) -> None:
    async with harness.database.connection() as connection:
        await assert_closed(connection)


async def test_all_of_it_holds_for_an_owner_who_can_make_no_roles(empty_database_url: str) -> None:
    async with login(empty_database_url, options="NOCREATEROLE NOCREATEDB") as (name, owner):
        administrator = await asyncpg.connect(empty_database_url)
        await administrator.execute(f"ALTER DATABASE {urlsplit(empty_database_url).path[1:]} OWNER TO {name}")
        there = urlsplit(empty_database_url)
        async with Database(there._replace(netloc=f"{name}:pw@{there.hostname}:{there.port}").geturl()) as database:
            await migrate(database)
        await assert_closed(owner)
        async with login(empty_database_url, f"INSERT ({COLUMNS}) ON archive_queue") as (_, producer):
            await producer.execute(INSERT, "s-1")
            await producer.execute(INSERT, "s-1")
        assert await owner.fetchval("SELECT array_agg(session_id) FROM archive_sessions") == ["s-1"]
        await administrator.execute(f"ALTER DATABASE {there.path[1:]} OWNER TO CURRENT_USER")
        await administrator.close()


async def test_who_was_granted_the_rows_may_run_the_statements(memory: Path, worker_id: str, tmp_path: Path) -> None:
    """On a server of its own: who may write all data is granted the functions by whoever migrates there, in any database."""
    async with embedded_postgres(memory / f"strangers-{worker_id}") as url, Database(url) as database:
        await migrate(database, until_0006(tmp_path))
        async with (
            login(url, "SELECT, UPDATE ON archive_queue") as (group, reader),
            login(url, group) as (member, one_of_them),
            login(url, "pg_read_all_data", "pg_write_all_data") as (_, of_all_data),
            login(url, "pg_read_all_data") as (_, none),
        ):
            await migrate(database)
            for worker in (reader, one_of_them, of_all_data):
                assert await worker.fetchval("SELECT archive_short('s-1')") == "s-1"
            assert member not in await reader.fetchval("SELECT proacl::text FROM pg_proc WHERE proname = 'archive_short'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await none.fetchval("SELECT archive_short('s-1')")


# --- numbers


async def test_a_producer_chooses_no_number_and_nobodys_call_vanishes(harness: QueueHarness) -> None:
    async with login(harness.database.dsn, "INSERT ON archive_queue") as (_, producer):
        await producer.execute(
            "INSERT INTO archive_queue (id, bot, session_id) OVERRIDING SYSTEM VALUE "
            "SELECT n, 'bot', 'mine-' || n FROM generate_series(1, 100) n"
        )
        await producer.execute(
            "INSERT INTO archive_queue (id, bot, session_id) OVERRIDING SYSTEM VALUE VALUES (9223372036854775807, 'bot', 'last')"
        )
        await producer.execute(INSERT, "s-1")
    await harness.fetch(INSERT, "s-2")
    assert await harness.queue.enqueue([NewSession("bot", f"s-{n}") for n in range(3, 53)], actor="me") == (50, 0)
    assert await harness.value("SELECT count(*) FROM archive_queue") == 153
    assert await harness.value("SELECT max(id) FROM archive_queue") < 1000


async def test_a_restore_by_the_owner_keeps_its_numbers(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_queue (id, bot, session_id) OVERRIDING SYSTEM VALUE VALUES (77, 'bot', 's-1')")
    assert (await harness.row("s-1"))["id"] == 77


async def test_one_who_took_the_first_number_before_the_upgrade_hides_no_row(empty_database_url: str, tmp_path: Path) -> None:
    async with Database(empty_database_url) as database, database.connection() as connection:
        await migrate(database, until_0006(tmp_path))
        await connection.execute(
            "INSERT INTO archive_queue (id, bot, session_id) OVERRIDING SYSTEM VALUE VALUES (1, 'bot', 'mine')"
        )
        await migrate(database)
        assert await connection.execute(INSERT, "s-1") == "INSERT 0 1"


async def test_a_schema_may_have_any_name(empty_database_url: str) -> None:
    async with Database(empty_database_url) as database, database.connection() as connection:
        await connection.execute('CREATE SCHEMA "Owner\'s own"')
        await connection.execute(f'ALTER DATABASE {urlsplit(empty_database_url).path[1:]} SET search_path = "Owner\'s own"')
    async with Database(empty_database_url) as database, database.connection() as connection:
        await migrate(database)
        assert await connection.execute(INSERT, "s-1") == "INSERT 0 1"


@pytest.mark.parametrize(
    "move",
    [
        "SELECT setval('archive_queue_id_seq', 1000)",
        "SELECT nextval('archive_queue_id_seq')",
        "ALTER TABLE archive_queue ALTER COLUMN id RESTART WITH 1000",
        "ALTER SEQUENCE archive_queue_id_seq RESTART",
    ],
)
async def test_a_producer_cannot_move_the_numbers_to_come(harness: QueueHarness, move: str) -> None:
    async with login(harness.database.dsn, "INSERT ON archive_queue") as (_, producer):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await producer.execute(move)


async def test_the_upgrade_begins_behind_numbers_that_were_taken_and_clamps(empty_database_url: str, tmp_path: Path) -> None:
    async with Database(empty_database_url) as database, database.connection() as connection:
        await migrate(database, until_0006(tmp_path))
        await connection.execute(
            "INSERT INTO archive_queue (id, bot, session_id, run_at) OVERRIDING SYSTEM VALUE SELECT n, 'bot', 'mine-' || n, "
            "'12000-01-01' FROM unnest('{2,3,4,9,4611686018427387904,9223372036854775807}'::bigint[]) n"
        )
        await migrate(database)
        for number in range(8):
            await connection.execute(INSERT, f"s-{number}")
        assert await connection.fetchval("SELECT array_agg(id ORDER BY id) FROM archive_queue WHERE session_id LIKE 's-%'") == [
            *range(10, 18)
        ]
        assert await connection.fetchval("SELECT max(run_at) <= now() + interval '30 days' FROM archive_queue")
        told = await connection.fetch("SELECT data FROM archive_history WHERE event = 'clamped'")
        assert [row["data"]["run_at_given"][:5] for row in told] == ["12000"] * 6


async def test_every_conflict_names_its_target(harness: QueueHarness) -> None:
    """One without would drop a row for whatever other constraint that it breaks."""
    texts = {statement.name: statement.text for statement in sql}
    for row in await harness.fetch("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace"):
        texts[row["proname"]] = row["prosrc"]
    assert [name for name, text in texts.items() if re.search(r"ON\s+CONFLICT\s+DO", text)] == []
    assert sum("ON CONFLICT (" in text for text in texts.values()) >= 7


# --- sessions that are put off


@pytest.mark.parametrize("far", ["294276-12-31Z", "now() + interval '1 year'", "now() + interval '31 days'"])
async def test_a_session_is_put_off_for_a_month_at_most_and_that_is_recorded(harness: QueueHarness, far: str) -> None:
    far = far if far.startswith("now") else f"'{far}'::timestamptz"
    async with login(harness.database.dsn, "INSERT ON archive_queue") as (_, producer):
        await producer.execute(f"INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-1', {far})")
    row = await harness.row("s-1")
    assert row["run_at"] - row["enqueued_at"] == MONTH
    asked = await harness.value(f"SELECT to_jsonb(date_trunc('year', {far})) #>> '{{}}'")
    ((event,),) = [row.values() for row in await harness.fetch("SELECT data FROM archive_history")]
    assert asked[:4] == row["detail"]["run_at_given"][:4] == event["run_at_given"][:4]


async def test_a_month_is_not_too_far(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-1', now() + interval '30 days')")
    row = await harness.row("s-1")
    assert (row["run_at"] - row["enqueued_at"], row["detail"]) == (MONTH, {})


@pytest.mark.parametrize("conflict", ["", "ON CONFLICT DO NOTHING", "ON CONFLICT (bot, session_id, kind) DO NOTHING"])
async def test_a_later_insert_brings_it_forward_and_wakes(harness: QueueHarness, conflict: str) -> None:
    worker = await harness.worker()
    await harness.add("s-1", run_at=datetime(9000, 1, 1, tzinfo=UTC))
    assert await harness.claim(worker) == []
    wake = asyncio.Event()
    async with (
        harness.database.listening(wake),
        login(harness.database.dsn, "INSERT, SELECT ON archive_queue") as (name, producer),
    ):
        try:
            await producer.execute(
                f"INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-2'), ('bot', 's-1') {conflict}"
            )
        except asyncpg.UniqueViolationError:
            assert conflict == ""  # undone whole, as it was before
            assert await harness.claim(worker) == []
            return
        async with asyncio.timeout(20):
            await wake.wait()
        assert sorted(ids(await harness.claim(worker))) == ["s-1", "s-2"]
        (event,) = await harness.fetch("SELECT actor FROM archive_history WHERE event = 'brought_forward'")
        assert event["actor"] == name


async def test_a_row_brings_forward_what_one_before_it_in_the_same_insert_put_off(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await harness.fetch(
        "INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-1', '9000-01-01'), ('bot', 's-1', now())"
        " ON CONFLICT DO NOTHING"
    )
    assert ids(await harness.claim(worker)) == ["s-1"]


async def test_the_command_brings_it_forward_too_and_raises_it(harness: QueueHarness) -> None:
    worker = await harness.worker()
    await harness.add("s-1", "s-2", run_at=datetime(9000, 1, 1, tzinfo=UTC), priority="low")
    wanted = [NewSession("bot", "s-1", priority="high"), NewSession("bot", "s-2", priority="low")]
    assert await harness.queue.enqueue(wanted, actor="me") == (0, 1)
    assert await harness.history("s-1") == ["enqueued", "raised", "brought_forward"]
    assert await harness.history("s-2") == ["enqueued", "brought_forward"]
    assert await harness.queue.enqueue(wanted, actor="me") == (0, 0)
    assert sorted(ids(await harness.claim(worker))) == ["s-1", "s-2"]
    assert [(await harness.row(one))["priority"] for one in ("s-1", "s-2")] == ["high", "low"]


async def test_no_other_session_is_brought_forward(harness: QueueHarness) -> None:
    """Inserting a session again changes nothing, apart from that."""
    worker = await harness.worker()
    later = datetime.now(UTC) + timedelta(days=3)
    await harness.add("s-1", run_at=later)
    await harness.add("s-2", "s-3", run_at=datetime(9000, 1, 1, tzinfo=UTC))
    await harness.add("s-3", run_at=later)
    await harness.fetch("UPDATE archive_queue SET run_at = now() WHERE session_id = 's-2'")
    (claimed,) = await harness.claim(worker)
    await harness.queue.release_orphans(worker, [])
    await harness.fetch("UPDATE archive_queue SET run_at = $1 WHERE session_id = 's-2'", later)
    before = {one: await harness.row(one) for one in ("s-1", "s-2", "s-3")}
    assert (claimed.session_id, before["s-3"]["run_at"], before["s-2"]["epoch"]) == ("s-2", later, 2)
    await harness.add("s-1", "s-2")
    await harness.add("s-3", run_at=later + timedelta(days=1))
    await harness.add("s-3", kind="voicemail")
    await harness.queue.enqueue([NewSession("bot", "s-1"), NewSession("bot", "s-2")], actor="me")
    after = await harness.fetch("SELECT * FROM archive_queue WHERE kind = 'recording'")
    assert before == {row["session_id"]: row for row in after}


async def test_two_that_bring_it_forward_at_once_leave_it_at_the_earlier_time(harness: QueueHarness) -> None:
    await harness.add("s-1", run_at=datetime(9000, 1, 1, tzinfo=UTC))
    async with login(harness.database.dsn, "INSERT ON archive_queue") as (_, producer):
        later = """INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-1', now() + interval '2 days')
                   ON CONFLICT DO NOTHING"""
        async with harness.locked(later):
            at_once = asyncio.create_task(producer.execute(INSERT, "s-1"))
            await harness.blocked()
        await at_once
    assert ids(await harness.claim(await harness.worker())) == ["s-1"]


async def test_what_falls_due_within_a_day_no_producer_keeps_from_the_workers(harness: QueueHarness) -> None:
    """Who brings a session forward has it locked until the end of their transaction, which need not come."""
    await harness.add("s-1", run_at=datetime(9000, 1, 1, tzinfo=UTC))
    await harness.add("s-1")
    await harness.add("s-2", run_at=datetime(9000, 1, 1, tzinfo=UTC))
    await harness.add("s-2", run_at=datetime.now(UTC) + timedelta(hours=20))
    before = await harness.fetch("SELECT * FROM archive_queue ORDER BY id")
    earlier = "INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', $1, '1970-01-01') ON CONFLICT DO NOTHING"
    async with harness.locked(earlier, "s-1"), harness.locked(earlier, "s-2"):
        assert ids(await harness.claim(await harness.worker())) == ["s-1"]
    assert (await harness.row("s-2")) == before[1]
    assert await harness.history("s-2") == ["enqueued", "brought_forward"]


# --- what any login may fill or hold


async def forever(connection: Any, query: str) -> None:
    while True:
        await connection.execute(query)


async def flood(url: str) -> None:
    """Notify until there is no more room for it."""
    async with login(url) as (_, stranger):
        notify = "SELECT pg_notify('anything', n || repeat('x', 7000)) FROM generate_series(1, 5) n"
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="too many notifications"):
            await asyncio.wait_for(forever(stranger, notify), 60)


@pytest.mark.once
async def test_nobody_keeps_rows_out_by_filling_the_queue_of_notifications(tmp_path: Path) -> None:
    """Whoever listens and never ends a transaction keeps the server from forgetting any notification."""
    async with embedded_postgres(tmp_path / "pg"):
        pass
    with (tmp_path / "pg" / "data" / "postgresql.conf").open("a") as settings:
        settings.write("max_notify_queue_pages = 64\n")
    async with embedded_postgres(tmp_path / "pg") as url, Database(url) as database:
        await migrate(database)
        queue, operators = Queue(database, RETRY), Operators(database)
        async with login(url) as (_, stranger), login(url, "INSERT ON archive_queue") as (_, producer):
            for step in ("LISTEN anything", "BEGIN", "SELECT 1"):
                await stranger.execute(step)
            await flood(url)
            await producer.execute(INSERT, "s-1")
            await producer.execute("INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-2', '9000-01-01')")
            await producer.execute(INSERT, "s-2")
            await producer.execute("INSERT INTO archive_queue (bot, session_id, run_at) VALUES ('bot', 's-3', '9000-01-01')")
            assert await queue.enqueue([NewSession("bot", "s-3"), NewSession("bot", "s-4")], actor="me") == (1, 0)
            assert await operators.cancel(ids=["s-1"], reason="no", actor="me") == ["s-1"]
            assert await operators.retry(ids=["s-1"], states=[State.CANCELLED], actor="me") == ["s-1"]
            await operators.resume(None, actor="me")


async def test_nobody_is_waited_for_who_is_none_of_ours(harness: QueueHarness) -> None:
    """Whoever may log in can take any advisory lock."""
    take = "SELECT pg_advisory_lock{}(hashtextextended('archiver nightly bot', 0))"
    ours, theirs = harness.database, "SELECT, UPDATE ON archive_queue"
    for how in ("", "_shared"):
        async with login(ours.dsn) as (_, stranger), asyncio.timeout(20):
            await stranger.execute(take.format(how))
            async with ours.alone("nightly bot", on_wait=lambda: pytest.fail("waits")):
                pass
    waits = asyncio.Event()
    async with login(ours.dsn, theirs) as (_, worker), login(ours.dsn) as (_, stranger), asyncio.timeout(20):
        await stranger.execute(take.format("").replace("nightly", "another"))
        await worker.execute(take.format(""))

        async def enter() -> None:
            async with ours.alone("nightly bot", on_wait=waits.set):
                pass

        entering = asyncio.create_task(enter())
        await waits.wait()
        await worker.execute("SELECT pg_advisory_unlock_all()")
        await entering


async def test_no_stranger_keeps_the_database_from_being_migrated(empty_database_url: str, tmp_path: Path) -> None:
    async with Database(empty_database_url) as database, login(empty_database_url) as (_, stranger), asyncio.timeout(60):
        await migrate(database, until_0006(tmp_path))
        await stranger.execute("SELECT pg_advisory_lock(x'6b6f7265'::bigint)")
        done = await asyncio.gather(migrate(database), migrate(database))
        assert sorted(each.version for applied in done for each in applied) == [each.version for each in migrations()[6:]]


# --- values of megabytes


@pytest.mark.parametrize(
    ("values", "dropped"),
    [
        ("repeat('u', 5000000), NULL", {"user_id": 5_000_000}),
        ("'u-1', jsonb_build_object('a', repeat('m', 5000000))", {"metadata": 5_000_017}),
        ("'u-1', to_jsonb(repeat('m', 5000000))", {"metadata": 5_000_000}),
        ("'u-1', jsonb_build_array(repeat(chr(1), 5000000))", {"metadata": 5_000_012}),
        ("repeat('u', 501), jsonb_build_object('a', repeat('m', 65536))", {"user_id": 501, "metadata": 65_553}),
    ],
)
async def test_a_value_of_megabytes_ends_its_row_and_no_batch(
    harness: QueueHarness, values: str, dropped: dict[str, int]
) -> None:
    async with login(harness.database.dsn, f"INSERT ({COLUMNS}) ON archive_queue") as (_, producer):
        await producer.execute(
            f"""INSERT INTO archive_queue (bot, session_id, user_id, metadata)
                VALUES ('bot', 's-1', 'u-1', '{{"a": 1}}'), ('bot', 's-2', {values}), ('bot', 's-3', NULL, NULL)
                ON CONFLICT DO NOTHING"""
        )
    row = await harness.row("s-2")
    assert (row["state"], row["reason"], row["detail"]["dropped"]) == ("failed", "metadata_too_large", dropped)
    assert (row["user_id"], row["metadata"]) == (None if "user_id" in dropped else "u-1", {})
    worker = await harness.worker()
    assert sorted(ids(await harness.claim(worker))) == ["s-1", "s-3"]
    assert await harness.operators.retry(ids=["s-2"], states=[State.FAILED], actor="me") == ["s-2"]
    assert ids(await harness.claim(worker)) == ["s-2"]


async def test_what_the_program_allows_the_database_takes(harness: QueueHarness) -> None:
    frame = len('{"a": ""}')
    await harness.add("s-1", user_id="ä" * MAX_USER_ID, metadata={"a": "m" * (MAX_METADATA - frame)})
    await harness.add("s-2", user_id="ä" * (MAX_USER_ID + 1))
    await harness.add("s-3", metadata={"a": "m" * (MAX_METADATA - frame + 1)})
    assert [(await harness.row(one))["state"] for one in ("s-1", "s-2", "s-3")] == ["pending", "failed", "failed"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("repeat('[', 5000) || repeat(']', 5000)", '"(nested too deep)"'),
        ("""repeat('{"c": ', 5000) || '1' || repeat('}', 5000)""", '"(nested too deep)"'),
        ("repeat('[', 90) || repeat(']', 90)", "[" * 90 + "]" * 90),
        ("repeat('9', 60000)", f'"{"9" * 60000}"'),
        ("'-' || repeat('9', 400) || '.5'", f'"-{"9" * 400}.5"'),
        ("'-' || repeat('9', 400)", f"-{'9' * 400}"),
    ],
)
async def test_whatever_a_producer_says_of_a_session_can_be_shown(harness: QueueHarness, value: str, shown: str) -> None:
    async with login(harness.database.dsn, f"INSERT ({COLUMNS}) ON archive_queue") as (_, producer):
        await producer.execute(
            f"""INSERT INTO archive_queue (bot, session_id, metadata)
                VALUES ('bot', 's-1', ('{{"a": ' || {value} || ', "b": "]\\"["}}')::jsonb)"""
        )
    (row,) = await harness.reports.find_session("s-1", None, None)
    told = row.session["metadata"]
    assert told["b"] == ']"['
    assert shown in json.dumps(told["a"], allow_nan=False)


async def test_names_of_megabytes_abort_no_batch(harness: QueueHarness) -> None:
    async with harness.database.connection() as connection:
        await connection.execute(
            "INSERT INTO archive_queue (bot, session_id, kind) VALUES ('bot', 's-1', 'recording'), "
            "('bot', repeat('x', 2000000), 'recording'), (repeat('b', 2000000), 's-2', repeat('k', 2000000))"
        )
    failed = await harness.fetch("SELECT reason, octet_length(detail::text) AS size FROM archive_queue WHERE state = 'failed'")
    assert sorted(row["reason"] for row in failed) == ["invalid_session_id", "kind_not_supported"]
    assert max(row["size"] for row in failed) < 30_000
