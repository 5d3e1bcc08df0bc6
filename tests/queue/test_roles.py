"""What the roles may do that `archiver roles --print` makes: what the list in code says, and nothing else.

Roles belong to the whole server, whose other databases belong to other tests: other archives, to these.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from archiver.errors import DatabaseError, LedgerNotBegun, UsageError
from archiver.outcome import Archived
from archiver.postgres.database import Database
from archiver.postgres.roles import (
    AUDITOR,
    DEPTH,
    ENQUEUER,
    FUNCTIONS,
    MARK,
    PRUNING,
    ROLES,
    SCALER,
    TABLES,
    VIEWS,
    WEB,
    WORKER,
    Grant,
    Role,
    grant_again,
    identifier,
    literal,
    made_roles,
    script,
)
from archiver.queue.enqueueing import enqueue_all
from archiver.queue.ledger import Ledger
from archiver.queue.sessions import NewSession, Queue
from archiver.queue.sql import sql
from archiver.session import Attempt
from tests.conftest import RETRY
from tests.queue.conftest import QueueHarness, ids, stored_file

pytestmark = pytest.mark.once  # what Postgres does is the same under every Python

REFUSED = asyncpg.InsufficientPrivilegeError
_numbers = itertools.count()

OWNERS = re.compile(r"rebuild/|identity/take")
"""Statements that are the owner's alone."""

DRIVERS = {"ledger/durable", "ledger/soon"}
"""Statements that read and write nothing, so that EXPLAIN has nothing to say."""


class Made:
    """The roles of one archive."""

    def __init__(self, owner: Any, prefix: str) -> None:
        self.owner = owner
        self.prefix = prefix

    def name(self, role: Role) -> str:
        return f"{self.prefix}_{role.kind}"

    async def run(self, role: Role, query: str, *arguments: Any) -> Any:
        """The first value of a statement that this role runs, undone again."""
        transaction = self.owner.transaction()
        await transaction.start()
        try:
            await self.owner.execute(f"SET LOCAL SESSION AUTHORIZATION {identifier(self.name(role))}")
            return await self.owner.fetchval(query, *arguments)
        finally:
            await transaction.rollback()

    async def refused(self, role: Role, *queries: str) -> None:
        for query in queries:
            with pytest.raises(REFUSED):
                await self.run(role, query)


async def drop(owner: Any, prefix: str) -> None:
    names = ", ".join(identifier(f"{prefix}_{role.kind}") for role in ROLES)
    await owner.execute(f"DROP OWNED BY {names}; DROP ROLE {names}")


@asynccontextmanager
async def made(database_url: str, *, keep_history: bool = False, prefix: str = "") -> AsyncIterator[Made]:
    """The roles, made by the printed SQL, which is run twice."""
    owner = await asyncpg.connect(database_url)
    prefix = prefix or f"{urlsplit(database_url).path[1:]}_{next(_numbers)}"
    try:
        for _ in range(2):
            await owner.execute(script(prefix, keep_history=keep_history))
        try:
            yield Made(owner, prefix)
        finally:
            await drop(owner, prefix)
    finally:
        await owner.close()


@asynccontextmanager
async def logged_in(roles: Made, database_url: str, role: Role) -> AsyncIterator[Database]:
    """The program, as a login that was granted the role."""
    name = f"login_{next(_numbers)}_{urlsplit(database_url).path[1:]}"
    there = urlsplit(database_url)
    await roles.owner.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw' IN ROLE {identifier(roles.name(role))}",
    )
    try:
        async with Database(there._replace(netloc=f"{name}:pw@{there.hostname}:{there.port}").geturl(), pool_size=2) as database:
            yield database
    finally:
        await roles.owner.execute(f"DROP ROLE {name}")


# --- what the list says, and the catalogue


CATALOGUE = """
    SELECT t.name || '.' || p.privilege AS found
    FROM unnest($2::text[]) t (name), unnest($4::text[]) p (privilege) WHERE has_table_privilege($1, t.name, p.privilege)
    UNION ALL
    SELECT a.attrelid::regclass || '.' || p.privilege || '.' || a.attname
    FROM pg_attribute a, unnest('{INSERT,UPDATE,SELECT,REFERENCES}'::text[]) p (privilege)
    WHERE a.attrelid = ANY ($2::text[]::regclass[]) AND a.attnum > 0 AND NOT a.attisdropped
      AND has_column_privilege($1, a.attrelid, a.attnum, p.privilege) AND NOT has_table_privilege($1, a.attrelid, p.privilege)
    UNION ALL
    SELECT f.name || '.EXECUTE' FROM unnest($3::text[]) f (name) WHERE has_function_privilege($1, f.name, 'EXECUTE')
    UNION ALL
    SELECT p.oid::regprocedure || '.EXECUTE' FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace AND p.oid <> ALL ($3::text[]::regprocedure[])
      AND has_function_privilege($1, p.oid, 'EXECUTE')
    UNION ALL
    SELECT c.relname || '.' || p.privilege FROM pg_class c, unnest('{USAGE,SELECT,UPDATE}'::text[]) p (privilege)
    WHERE c.relkind = 'S' AND c.relnamespace = current_schema()::regnamespace AND has_sequence_privilege($1, c.oid, p.privilege)
    UNION ALL
    SELECT 'CREATE'
    WHERE has_schema_privilege($1, current_schema(), 'CREATE') OR has_database_privilege($1, current_database(), 'CREATE')
    UNION ALL
    SELECT 'member of ' || m.roleid::regrole FROM pg_auth_members m
    WHERE m.member = (SELECT oid FROM pg_roles WHERE rolname = $1)"""
PRIVILEGES = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]


def listed(grants: tuple[Grant, ...]) -> set[str]:
    return {
        f"{each.on}.{each.privilege}" + (f".{column}" if column else "") for each in grants for column in each.columns or ("",)
    }


async def held(roles: Made, role: Role) -> set[str]:
    rows = await roles.owner.fetch(CATALOGUE, roles.name(role), [*TABLES, *VIEWS], list(FUNCTIONS), PRIVILEGES)
    return {row["found"] for row in rows}


async def test_each_role_has_what_the_list_says_and_nothing_else(harness: QueueHarness) -> None:
    async with made(harness.database.dsn) as roles:
        for role in ROLES:
            assert await held(roles, role) == listed(role.grants), role.kind
            facts = "rolcanlogin OR rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls"
            assert not await roles.owner.fetchval(f"SELECT {facts} FROM pg_roles WHERE rolname = $1", roles.name(role))
        # Run again, it takes back what was granted besides, and what was granted once.
        await roles.owner.execute(f"GRANT DELETE ON archived_recordings TO {roles.name(AUDITOR)}")
        await roles.owner.execute(script(roles.prefix, keep_history=True))
        assert await held(roles, AUDITOR) == listed(AUDITOR.grants)
        assert await held(roles, WORKER) == listed((*WORKER.grants, *PRUNING))
        await roles.owner.execute(script(roles.prefix, keep_history=False))
        assert await held(roles, WORKER) == listed(WORKER.grants)


async def test_the_list_knows_every_table_view_and_function(harness: QueueHarness) -> None:
    kinds = {"r": set(TABLES), "v": set(VIEWS)}
    for kind, known in kinds.items():
        rows = await harness.fetch(
            'SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = $1::text::"char"',
            kind,
        )
        assert {row["relname"] for row in rows} == known
    rows = await harness.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prorettype <> 'trigger'::regtype"
    )
    assert {row["proname"] for row in rows} == {each.partition("(")[0] for each in FUNCTIONS}


# --- statements


async def may_run(owner: Any, roles: Made, role: Role, name: str) -> bool:
    """Whether the server lets the role begin the statement: EXPLAIN asks for all rights, and runs nothing."""
    statement = sql(name)
    transaction = owner.transaction()
    await transaction.start()
    try:
        await owner.execute(
            f"SET LOCAL ROLE {identifier(roles.name(role))}; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off"
        )
        if not re.search(r"^(WITH|SELECT|INSERT|UPDATE|DELETE|\()", statement.text, re.MULTILINE):
            await owner.execute(statement.text)
        else:
            nulls = ", ".join(["NULL"] * len(statement.parameters))
            await owner.execute(f"PREPARE one AS {statement.text}")
            await owner.execute(f"EXPLAIN EXECUTE one{f' ({nulls})' if nulls else ''}")
    except REFUSED:
        return False
    finally:
        await transaction.rollback()
        await owner.execute("DEALLOCATE ALL")
    return True


WRITES = re.compile(
    r"\b(INSERT INTO|UPDATE arch|DELETE FROM|UPDATE SET|FOR (NO KEY )?UPDATE|FOR (KEY )?SHARE|archive_draw|archive_enqueue"
    r"|LOCK TABLE|ALTER TABLE)"
)


BY_THE_WAY = {
    "claim/release_orphans", "export/note", "hold/release", "ledger/note", "rebuild/history", "rebuild/say_again", "verify/lock",
    "worker/record_bots",
}  # fmt: skip
"""What `web` may run besides: pausing a bot records its name; of the others it has no use."""


async def test_each_role_runs_the_statements_of_its_commands_and_no_other(harness: QueueHarness) -> None:
    names = [
        each.name for each in sql if each.name not in DRIVERS and not re.search(r"^(SAVEPOINT|RELEASE|ROLLBACK)", each.text, re.M)
    ]
    names = [name for name in names if name not in ("rebuild/begin", "rebuild/end")]
    writing = {name for name in names if WRITES.search(re.sub(r"--.*", "", sql(name).text))}
    async with made(harness.database.dsn) as roles:
        may = {role: {name for name in names if await may_run(roles.owner, roles, role, name)} for role in ROLES}
    assert may[AUDITOR] == set(names) - writing
    owners = {name for name in writing if OWNERS.match(name)} - {"rebuild/say_again", "rebuild/history", "rebuild/drop_waiting"}
    assert set(names) - may[WORKER] == owners | {"upkeep/prune_history", "enqueue/as_producer"}
    operating = {name for name in names if name.startswith("operate/") and name in writing}
    assert may[WEB] - may[AUDITOR] == operating | BY_THE_WAY
    harmless = {"enqueue/may_change", "report/clock", "verify/can_keep"}
    assert may[ENQUEUER] == harmless | {"enqueue/as_producer"}
    assert may[SCALER] == harmless


async def test_workers_remove_old_history_where_that_was_granted(harness: QueueHarness) -> None:
    async with made(harness.database.dsn, keep_history=True) as roles:
        assert await may_run(roles.owner, roles, WORKER, "upkeep/prune_history")


# --- what is refused, in earnest


async def test_no_role_rewrites_what_happened(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.fetch(
        "INSERT INTO archive_events (queue_id, event, epoch, lines) VALUES (1, 'x', 1, '[[\"asked\", 1, 200, 0, 0]]')"
    )
    async with made(harness.database.dsn) as roles:
        for role in ROLES:
            await roles.refused(
                role,
                *(f"TRUNCATE {table} CASCADE" for table in TABLES),
                *(f"DROP TABLE {table} CASCADE" for table in TABLES),
                *(
                    f"DELETE FROM {table}"
                    for table in (
                        "archive_queue",
                        "archived_recordings",
                        "archive_events",
                        "archive_ledger",
                        "archive_ledger_batches",
                        "archive_ledger_head",
                        "archive_accounts",
                        "archive_migrations",
                    )
                ),
                "UPDATE archived_recordings SET sha256 = repeat('0', 64)",
                "UPDATE archive_events SET event = 'y'",
                "UPDATE archive_queue SET session_id = 'other'",
                "UPDATE archive_queue SET enqueued_by = 'other'",
                "UPDATE archive_ledger SET edition = 1",
                "UPDATE archive_ledger_batches SET checkpoint = ''",
                "UPDATE archive_migrations SET min_program = '9.9'",
                "UPDATE archive_identity SET archive_id = gen_random_uuid()",
                "INSERT INTO archive_queue (bot, session_id, state, finished_at) VALUES ('bot', 's-2', 'archived', now())",
                "CREATE TABLE mine ()",
                "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
                "ALTER TABLE archive_events DISABLE TRIGGER USER",
                "SET session_replication_role = replica",
            )
        # What repair may do to a line is to complete it.
        await roles.refused(
            WORKER,
            "UPDATE archive_events SET lines = '[]'",
            "UPDATE archive_events SET lines = NULL",
            "UPDATE archive_events SET lines = '[[\"asked\", 1, 404, 0, 0]]'",
        )
        assert await roles.run(WORKER, "UPDATE archive_events SET lines = lines RETURNING 1") == 1


async def test_a_line_takes_over_what_its_row_said_and_nothing_else(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.fetch(
        "INSERT INTO archive_events (queue_id, event, epoch, lines) VALUES (1, 'x', 1, $1)",
        [["stored", 5, {"mended": True}, 1, "abcd"]],
    )
    query = "UPDATE archive_events SET lines = '[[\"stored\", 5, {}]]' RETURNING 1"
    async with made(harness.database.dsn) as roles:
        whole = '{"mended": true, "ordinal": 1, "sha256": "abcd01", "store_key": "k"}'
        assert await roles.run(WORKER, query.replace("{}", whole)) == 1
        for wrong in (
            '{"ordinal": 1, "sha256": "abcd01"}',
            whole.replace("abcd", "abce"),
            whole.replace('"ordinal": 1', '"ordinal": 2'),
        ):
            await roles.refused(WORKER, query.replace("{}", wrong))


async def test_a_worker_repairs_and_the_history_stays(harness: QueueHarness) -> None:
    attempt = Attempt(await harness.claim_one(), [file := stored_file(1)], calls=1)
    attempt.note("stored", **file.as_row())
    await harness.settle(attempt, Archived())
    query = "SELECT at, event, data FROM archive_history WHERE event <> 'repaired' ORDER BY at, id, place"
    before = await harness.fetch(query)
    named = {"from_key": file.store_key, "sha256": file.sha256, "store_key": "k/other.wav", "file_name": "other.wav"}
    async with made(harness.database.dsn) as roles, logged_in(roles, harness.database.dsn, WORKER) as database:
        move, session = sql("repair/move"), attempt.session
        rows = await database.rows(move, queue_id=session.id, epoch=session.epoch, source="platform", actor="me", **named)
        assert [row["queue_id"] for row in rows] == [session.id]
    assert await harness.fetch(query) == before


async def test_a_worker_begins_the_ledger_while_nobody_changes_sessions(harness: QueueHarness) -> None:
    async with made(harness.database.dsn) as roles, logged_in(roles, harness.database.dsn, WORKER) as database:
        async with harness.locked("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')"):
            with pytest.raises(LedgerNotBegun):
                await Ledger(database).begin("archive.example/calls", "key", bytes(32))
        await Ledger(database).begin("archive.example/calls", "key", bytes(32))
    assert await harness.value("SELECT count(*) FROM archive_ledger_head") == 1


async def test_whoever_enqueues_reads_nothing_and_changes_nothing_of_others(harness: QueueHarness) -> None:
    await harness.add("s-1", priority="low")
    far = datetime.now(UTC) + timedelta(days=90)
    await harness.add("s-2", run_at=far)
    async with made(harness.database.dsn) as roles:
        await roles.refused(
            ENQUEUER,
            *(f"SELECT * FROM {name} LIMIT 0" for name in {*TABLES, *VIEWS} - {"archive_migrations"}),
            "SELECT session_id FROM archive_queue",
            "UPDATE archive_queue SET priority = 'high'",
            "UPDATE archive_queue SET run_at = 'infinity'",
            "DELETE FROM archive_queue",
            "INSERT INTO archive_events (queue_id, event, epoch) VALUES (1, 'x', 0)",
            "SELECT nextval('archive_queue_id_seq')",
            "SELECT archive_ready_depth()",
            "SELECT archive_lock_sessions()",
            "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-9') RETURNING id",
        )
        async with logged_in(roles, harness.database.dsn, ENQUEUER) as database:
            producer = Queue(database, RETRY)
            sessions = [NewSession("bot", f"s-{n}", priority="high") for n in (1, 2, 3)]
            assert await producer.enqueue(sessions, actor="me@here") == (1, 2)
            assert await enqueue_all(database, lambda: [sessions], actor="me@here") == (0, 0)
            async with database.connection() as connection:
                insert = "INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1) ON CONFLICT DO NOTHING"
                assert [await connection.execute(insert, one) for one in ("s-1", "s-4")] == ["INSERT 0 0", "INSERT 0 1"]
                login = await connection.fetchval("SELECT session_user")
            with pytest.raises(DatabaseError, match=rf"permission denied for table archive_queue \(role {login}\)") as caught:
                await database.rows(sql("enqueue/known"), session_ids=["s-1"])
            assert "archiver roles" in caught.value.hint
    assert sorted(ids(await harness.claim(await harness.worker()))) == ["s-1", "s-2", "s-3", "s-4"]
    rows = await harness.fetch("SELECT session_id, priority, enqueued_by FROM archive_queue ORDER BY 1")
    assert [(row["session_id"], row["priority"]) for row in rows] == [
        ("s-1", "high"), ("s-2", "high"), ("s-3", "high"), ("s-4", "normal"),
    ]  # fmt: skip
    assert rows[2]["enqueued_by"] == login
    (story,) = await harness.reports.find_session("s-1", None, None)
    assert [event["actor"] for event in story.events if event["event"] == "raised"] == [f"me@here as {login}"]


async def test_whoever_enqueues_cannot_hide(harness: QueueHarness) -> None:
    await harness.add("s-1", priority="low")
    async with (
        made(harness.database.dsn) as roles,
        logged_in(roles, harness.database.dsn, ENQUEUER) as database,
        database.connection() as connection,
    ):
        login = await connection.fetchval("SELECT session_user")
        one = "'{bot}', '{s-1}', '{recording}', '{high}', '{NULL}', '{NULL}', '{NULL}', '{NULL}', NULL"
        assert await connection.fetchval(f"SELECT raised FROM archive_enqueue({one})") == 1
    (story,) = await harness.reports.find_session("s-1", None, None)
    assert [event["actor"] for event in story.events if event["event"] == "raised"] == [login]


# --- names, and other archives


HOSTILE = """o'brien"; DROP TABLE archive_queue; --\\$do$"""


async def test_a_prefix_is_a_name_whatever_is_in_it(harness: QueueHarness) -> None:
    prefix = HOSTILE[:16] + str(next(_numbers)) + HOSTILE[34:]
    for hostile in (HOSTILE[-30:], prefix):
        async with made(harness.database.dsn, prefix=hostile) as roles:
            assert await held(roles, SCALER) == listed(SCALER.grants)
            assert await roles.run(SCALER, "SELECT archive_ready_depth()") == 0
    assert literal("a'b\\") == "E'a''b\\\\'"


@pytest.mark.parametrize("prefix", ["", "pg_mine", "a\nb", "a\x00b", "x" * 41, "ü" * 21, "a\u2028b"])
def test_a_prefix_that_cannot_begin_a_name_is_refused(prefix: str) -> None:
    with pytest.raises(UsageError, match="--prefix"):
        script(prefix, keep_history=False)


async def test_a_role_that_was_there_before_is_not_taken(harness: QueueHarness) -> None:
    name = f"before_{urlsplit(harness.database.dsn).path[1:]}"
    owner = await asyncpg.connect(harness.database.dsn)
    try:
        await owner.execute(f"CREATE ROLE {name}_web LOGIN")
        with pytest.raises(asyncpg.RaiseError, match=f"the role {name}_web was not made for this") as caught:
            await owner.execute(script(name, keep_history=False))
        assert caught.value.hint == "choose another --prefix"
        await owner.execute("ROLLBACK")
        assert await owner.fetchval("SELECT count(*) FROM pg_roles WHERE starts_with(rolname, $1)", name) == 1
        await owner.execute(f"DROP ROLE {name}_web")
    finally:
        await owner.close()


async def test_a_role_of_another_archive_is_not_let_in(harness: QueueHarness, empty_database_url: str) -> None:
    async with made(harness.database.dsn) as roles:
        other = await asyncpg.connect(empty_database_url)
        try:
            with pytest.raises(asyncpg.RaiseError, match=r"_worker serves the archive in the database test_") as caught:
                await other.execute(script(roles.prefix, keep_history=False))
        finally:
            await other.close()
        assert str(caught.value.hint).startswith("choose another --prefix")


async def test_migrate_gives_the_roles_of_this_archive_what_they_lack(harness: QueueHarness) -> None:
    other = f"other_{urlsplit(harness.database.dsn).path[1:]}"
    async with made(harness.database.dsn) as roles:
        # As if the tables of an upgrade were new; and a role of another archive, and one that only calls itself a worker's.
        await roles.owner.execute(f"""
            CREATE ROLE {other}_worker; COMMENT ON ROLE {other}_worker IS '{MARK}worker';
            CREATE ROLE {other}_sly; COMMENT ON ROLE {other}_sly IS '{MARK}worker';
            GRANT SELECT ON archive_sessions TO {other}_sly;
            REVOKE ALL ON archive_figures, archive_history FROM {roles.name(WORKER)}, {roles.name(AUDITOR)}""")
        assert await grant_again(harness.database) == sorted([roles.name(WORKER), roles.name(AUDITOR)])
        assert await grant_again(harness.database) == []
        for role in ROLES:
            assert await held(roles, role) == listed(role.grants)
        for mine in ("worker", "sly"):
            has = f"SELECT has_any_column_privilege('{other}_{mine}', 'archive_queue', 'SELECT')"
            assert not await roles.owner.fetchval(has)
        await roles.owner.execute(f"DROP OWNED BY {other}_sly; DROP ROLE {other}_worker, {other}_sly")


async def test_migrate_finds_the_roles_on_a_server_that_takes_no_table_for_a_function(harness: QueueHarness) -> None:
    """Before Postgres 16 these two fail for a name of the other's kind, where later ones say NULL."""
    async with made(harness.database.dsn) as roles:
        await roles.owner.execute("""
            CREATE SCHEMA older;
            CREATE FUNCTION older.to_regclass(name text) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN
                IF name ~ '[(]' THEN RAISE 'invalid name syntax'; END IF;
                RETURN pg_catalog.to_regclass(name);
            END $$;
            CREATE FUNCTION older.to_regprocedure(name text) RETURNS regprocedure LANGUAGE plpgsql AS $$ BEGIN
                IF name !~ '[(]' THEN RAISE 'expected a left parenthesis'; END IF;
                RETURN pg_catalog.to_regprocedure(name);
            END $$;
            SET search_path = older, public, pg_catalog""")
        found = {each.name for each in await made_roles(roles.owner)}
        await roles.owner.execute("SET search_path = public; DROP SCHEMA older CASCADE")
        assert found == {roles.name(role) for role in ROLES}


async def test_the_printed_sql_says_what_is_to_be_done_before(harness: QueueHarness) -> None:
    owner = await asyncpg.connect(harness.database.dsn)
    try:
        await owner.execute("CREATE SCHEMA empty; SET search_path = empty")
        with pytest.raises(asyncpg.RaiseError, match="there is no archive in the database") as refused:
            await owner.execute(script(f"none_{next(_numbers)}", keep_history=False))
        assert "archiver migrate" in str(refused.value.as_dict()["hint"])
    finally:
        await owner.close()


async def test_functions_mean_our_tables_whatever_the_path_says(harness: QueueHarness) -> None:
    await harness.add("s-1")
    await harness.worker()
    async with (
        made(harness.database.dsn) as roles,
        logged_in(roles, harness.database.dsn, SCALER) as database,
        database.connection() as connection,
    ):
        name = await connection.fetchval("SELECT session_user")
        await roles.owner.execute(f"CREATE SCHEMA mine AUTHORIZATION {name}")
        await connection.execute("""
            CREATE TABLE mine.archive_queue (bot text); CREATE TABLE mine.archive_bots (name text);
            CREATE FUNCTION mine.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT timestamptz ''-infinity''';
            CREATE TEMP TABLE archive_holds (bot text, kind text); INSERT INTO archive_holds VALUES ('bot', 'recording');
            SET search_path = pg_temp, mine, pg_catalog, public""")
        assert await connection.fetchval("SELECT public.archive_ready_depth()") == 1
        await connection.execute("DROP SCHEMA mine CASCADE; DROP TABLE archive_holds")


# --- the depth


async def test_the_depth_is_what_workers_have_or_could_begin(harness: QueueHarness) -> None:
    depth = f"SELECT {DEPTH}"
    assert await harness.value(depth) == 0
    await harness.fetch("INSERT INTO archive_bots (name) VALUES ('bot'), ('held'), ('paused'), ('gone')")
    await harness.fetch("UPDATE archive_bots SET configured = false WHERE name = 'gone'")
    for bot in ("bot", "held", "paused", "gone", "never"):
        await harness.add(f"{bot}-1", f"{bot}-2", bot=bot)
        await harness.add(f"{bot}-3", bot=bot, kind="voicemail", priority="low")
        await harness.add(f"{bot}-4", bot=bot, run_at=datetime.now(UTC) + timedelta(hours=1))
    await harness.fetch("UPDATE archive_bots SET paused_at = now() WHERE name = 'paused'")
    await harness.fetch(
        "INSERT INTO archive_holds (bot, kind, reason, probe_at) VALUES ('held', 'recording', 'r', now() + interval '5 minutes')"
    )
    assert await harness.value(depth) == 3 + 1
    worker = await harness.worker()
    (first, *_) = await harness.claim(worker, 1)
    assert await harness.value(depth) == 4, "what is being worked on counts as well"
    await harness.operators.cancel(ids=[first.session_id], reason="r", actor="me")
    assert await harness.value(depth) == 3
    await harness.fetch(
        "UPDATE archive_queue SET state = 'claimed', worker_id = 1, epoch = 1, claimed_at = now() WHERE session_id = 'bot-2'"
    )
    await harness.fetch(
        "UPDATE archive_queue SET state = 'unavailable', reason = 'r', worker_id = NULL, finished_at = now(), recheck_at = now() "
        "WHERE session_id = 'bot-2'"
    )
    assert await harness.value(depth) == 3, "so does what is to be asked for once more"


async def test_the_depth_counts_no_further_than_ten_thousand(harness: QueueHarness) -> None:
    await harness.fetch("INSERT INTO archive_bots (name) VALUES ('bot')")
    await harness.fetch("INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's-' || n FROM generate_series(1, 10100) n")
    assert await harness.value(f"SELECT {DEPTH}") == 10_000


async def test_a_workers_lock_is_no_strangers(harness: QueueHarness) -> None:
    async with (
        made(harness.database.dsn) as roles,
        logged_in(roles, harness.database.dsn, WORKER) as database,
        asyncio.TaskGroup() as tasks,
    ):
        waited = asyncio.Event()

        async def second() -> None:
            async with harness.database.alone("nightly", on_wait=waited.set):
                pass

        async with database.alone("nightly", on_wait=lambda: None):
            task = tasks.create_task(second())
            async with asyncio.timeout(20):
                await waited.wait()
            assert not task.done()
