"""Roles with no more rights than their work needs: which there are, what each may do, and the SQL that makes them.

The one list of privileges: `archiver roles --print` prints it, `migrate` gives roles that were made so what new tables need, and
docs/roles.md shows it, held equal by a test. Whatever is not in it, such a role may not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.postgres.database import Database
from archiver.postgres.schema import AnyConnection

MARK = "archiver role: "
"""With it begins the comment by which `migrate` knows a role that was made so; the kind follows."""

LOCK_ROLES = "DO 'BEGIN PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(''archiver roles'', 0)); END'"
"""Who grants at the same time would write the same rows of the catalogue, and one would fail."""

MAX_PREFIX = 40
"""Characters: Postgres cuts names of more than 63 bytes."""

TABLES = (
    "archive_account_days", "archive_accounts", "archive_bot_events", "archive_bots", "archive_budgets", "archive_calls",
    "archive_discoveries", "archive_events", "archive_figures", "archive_findings", "archive_holds", "archive_identity",
    "archive_ledger", "archive_ledger_batches", "archive_ledger_head", "archive_ledger_outbox", "archive_ledger_tiles",
    "archive_leftovers", "archive_migrations", "archive_notifications", "archive_notifier", "archive_pruning", "archive_queue",
    "archive_rollup", "archive_rollup_changes", "archive_workers", "archived_recordings",
)  # fmt: skip
VIEWS = ("archive_countable", "archive_counts", "archive_history", "archive_mismatches", "archive_searchable", "archive_sessions")

SHORT = "archive_short(text)"
FIRST_ASK = "archive_first_ask(timestamptz, timestamptz, interval)"
DRAW = "archive_draw(text, integer, interval[], integer[])"
BODY = "archive_ledger_body(archive_queue, jsonb, text)"
FILE = "archive_ledger_file(archived_recordings)"
FILES = "archive_ledger_files(bigint)"
LOCK = "archive_lock_sessions()"
DEPTH = "archive_ready_depth()"
ENQUEUE = "archive_enqueue(text[], text[], text[], text[], text[], timestamptz[], timestamptz[], jsonb[], text)"
FUNCTIONS = (SHORT, FIRST_ASK, DRAW, BODY, FILE, FILES, LOCK, DEPTH, ENQUEUE)
TO_KEEP = (SHORT, BODY, FILE, FILES)
"""What statements call that write into the ledger's outbox."""


@dataclass(frozen=True)
class Grant:
    """A privilege on a table, view or function; `columns`: on these alone."""

    privilege: str
    on: str
    columns: tuple[str, ...] = ()

    @property
    def sql(self) -> str:
        """As it stands between GRANT and TO."""
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.privilege}{columns} ON {'FUNCTION ' if self.privilege == 'EXECUTE' else ''}{self.on}"


@dataclass(frozen=True)
class Role:
    """A kind of roles. `proof`: who was given this by the owner is one of the kind, as far as this database goes; a comment alone
    may be written by others.
    """

    kind: str
    purpose: str
    grants: tuple[Grant, ...]
    proof: Grant


def _select(*names: str) -> Iterator[Grant]:
    return (Grant("SELECT", name) for name in names)


def _execute(*functions: str) -> Iterator[Grant]:
    return (Grant("EXECUTE", function) for function in functions)


def _columns(privilege: str, on: str, names: str) -> Grant:
    return Grant(privilege, on, tuple(names.split()))


GIVEN = "bot session_id kind user_id started_at ended_at priority run_at metadata"
"""What a producer says of a session."""
STEERED = (
    "state reason detail run_at finished_at worker_id epoch failures checks crashes first_asked_at recheck_at rechecks "
    "recheck_tries archived_before accepted_at accepted_by accept_reason"
)
"""What an operator's command changes of a session."""
LEARNT = "claimed_at last_asked_at calls files priority call listed_at user_id started_at ended_at"
"""What a worker, and whoever reads the listings, changes besides. Not which session it is, nor who enqueued it when."""
NOTED = "queue_id event epoch actor at data claimed_at lines"
SEALED_NEXT = "event queue_id body"

AUDITOR = Role(
    "auditor",
    "reads everything: status, list, find, show, nights, proof, export, sums, verify, audit; changes nothing",
    (*_select(*TABLES, *VIEWS), *_execute(SHORT, FIRST_ASK, BODY, FILE, FILES)),
    Grant("SELECT", "archive_ledger"),
)

WORKER = Role(
    "worker",
    "archives, discovers, accounts, seals, verifies and repairs; every command but migrate and rebuild",
    (
        *_select(*TABLES, *VIEWS),
        _columns("INSERT", "archive_queue", GIVEN),
        _columns("UPDATE", "archive_queue", f"{STEERED} {LEARNT}"),
        Grant("INSERT", "archived_recordings"),
        _columns("UPDATE", "archived_recordings", "store_key file_name verified_at"),
        _columns("INSERT", "archive_events", NOTED),
        _columns("UPDATE", "archive_events", "lines"),
        Grant("INSERT", "archive_accounts"),
        Grant("INSERT", "archive_account_days"),
        Grant("INSERT", "archive_bot_events"),
        _columns("INSERT", "archive_bots", "name"),
        _columns("UPDATE", "archive_bots", "configured seen_at served_at paused_at paused_by first_ask"),
        *(Grant(privilege, "archive_budgets") for privilege in ("INSERT", "UPDATE")),
        *(Grant(privilege, "archive_calls") for privilege in ("INSERT", "DELETE")),
        Grant("INSERT", "archive_discoveries"),
        _columns("UPDATE", "archive_discoveries", "source reached calls added problems finished_at"),
        *(Grant(privilege, "archive_figures") for privilege in ("INSERT", "UPDATE")),
        *(Grant(privilege, "archive_findings") for privilege in ("INSERT", "UPDATE", "DELETE")),
        *(Grant(privilege, "archive_holds") for privilege in ("INSERT", "UPDATE", "DELETE")),
        _columns("UPDATE", "archive_identity", "store_marked_at store_url"),
        Grant("INSERT", "archive_ledger"),
        _columns("INSERT", "archive_ledger_batches", "first last checkpoint signature lines object_keys objects again"),
        _columns("UPDATE", "archive_ledger_batches", "published_at signature lines object_keys objects"),
        _columns("INSERT", "archive_ledger_head", "origin public_key root signers"),
        _columns(
            "UPDATE",
            "archive_ledger_head",
            "size root frontier public_key signers published published_at sealer leased_until adopt_before adopt_id adopt_at",
        ),
        _columns("INSERT", "archive_ledger_outbox", SEALED_NEXT),
        Grant("DELETE", "archive_ledger_outbox"),
        Grant("INSERT", "archive_ledger_tiles"),
        *(Grant(privilege, "archive_leftovers") for privilege in ("INSERT", "DELETE")),
        *(Grant(privilege, "archive_notifications") for privilege in ("INSERT", "DELETE")),
        _columns("UPDATE", "archive_notifications", "attempts first_tried_at due_at error sent_at given_up_at"),
        Grant("UPDATE", "archive_notifier"),
        *(Grant(privilege, "archive_rollup") for privilege in ("INSERT", "UPDATE", "DELETE")),
        *(Grant(privilege, "archive_rollup_changes") for privilege in ("INSERT", "UPDATE", "DELETE")),
        *(Grant(privilege, "archive_workers") for privilege in ("INSERT", "UPDATE", "DELETE")),
        *_execute(*TO_KEEP, FIRST_ASK, DRAW, LOCK, DEPTH),
    ),
    Grant("INSERT", "archive_workers"),
)

WEB = Role(
    "web",
    "reads everything, and does what operators do to sessions and bots: retry, cancel, accept, pause, resume",
    (
        *_select(*TABLES, *VIEWS),
        _columns("UPDATE", "archive_queue", STEERED),
        _columns("INSERT", "archive_events", NOTED),
        _columns("INSERT", "archive_bot_events", "bot event actor data"),
        _columns("INSERT", "archive_bots", "name"),
        _columns("UPDATE", "archive_bots", "configured seen_at paused_at paused_by"),
        _columns("UPDATE", "archive_findings", "accepted"),
        Grant("DELETE", "archive_holds"),
        _columns("INSERT", "archive_leftovers", "queue_id worker_id epoch"),
        _columns("INSERT", "archive_ledger_outbox", SEALED_NEXT),
        *_execute(*TO_KEEP, FIRST_ASK, DEPTH),
    ),
    Grant("DELETE", "archive_holds"),
)

ENQUEUER = Role(
    "enqueuer",
    "adds sessions, by `archiver enqueue` or by INSERT; reads none",
    (*_select("archive_migrations"), _columns("INSERT", "archive_queue", GIVEN), *_execute(ENQUEUE)),
    Grant("EXECUTE", ENQUEUE),
)

SCALER = Role(
    "scaler", "calls archive_ready_depth(), to start and stop workers by it", tuple(_execute(DEPTH)), Grant("EXECUTE", DEPTH)
)

ROLES = (WORKER, AUDITOR, ENQUEUER, SCALER, WEB)

PRUNING = (
    Grant("DELETE", "archive_events"),
    _columns("UPDATE", "archive_pruning", "finished_at queue_id"),
    _columns("UPDATE", "archive_queue", "enqueued_by enqueued_as"),
)
"""What the workers' role needs besides, where `database.keep_history` has them remove old history."""

READING = (
    "status", "workers", "list", "find", "show", "get", "proof", "export", "sums", "verify", "audit", "checkpoint", "nights",
    "healthcheck",
)  # fmt: skip
OPERATING = ("retry", "accept", "cancel", "pause", "resume")
WORKING = (
    "worker", "discover", "nightly", "backfill", "reconcile", "repair", "seal", "key", "store", "recount",
    "doctor",
)  # fmt: skip

COMMANDS: dict[str, tuple[Role, ...]] = {
    **dict.fromkeys(READING, (WORKER, AUDITOR, WEB)),
    **dict.fromkeys(OPERATING, (WORKER, WEB)),
    **dict.fromkeys(WORKING, (WORKER,)),
    "enqueue": (WORKER, ENQUEUER),
    **dict.fromkeys(("migrate", "rebuild"), ()),
}
"""Which roles a command works under, of those that use the database; none: the owner's alone."""


def literal(text: str) -> str:
    """As a string of SQL, whatever standard_conforming_strings says."""
    quoted = "'" + text.replace("'", "''") + "'"
    return f"E{quoted.replace(chr(92), 2 * chr(92))}" if "\\" in text else quoted


def identifier(text: str) -> str:
    """As a name of SQL."""
    return '"' + text.replace('"', '""') + '"'


def role_name(prefix: str, role: Role) -> str:
    """Of this prefix. Raises UsageError for one that cannot begin a name."""
    if not prefix or len(prefix.encode()) > MAX_PREFIX or not prefix.isprintable() or prefix.startswith("pg_"):
        raise UsageError(
            "--prefix cannot begin the name of a role",
            hint=f'1 to {MAX_PREFIX} bytes that can be printed, not "pg_" first: Postgres keeps those for itself',
        )
    return f"{prefix}_{role.kind}"


def script(prefix: str, *, keep_history: bool) -> str:
    """SQL for psql or any other client, to be run as often as one likes: it makes the roles of this prefix, and gives each
    exactly its rights on the archive that the search_path leads to. Raises UsageError for a prefix that cannot be.
    """
    names = {role: role_name(prefix, role) for role in ROLES}
    lines = [
        "-- The archiver's roles and their rights (docs/roles.md). Run it after `archiver migrate`, in the archive's database,",
        "-- as a superuser, or as the tables' owner with CREATEROLE; once the roles are there, the owner needs no CREATEROLE.",
        "-- Nobody logs in as one of these: make a login for each person and service, and grant it one of them:",
        "--     CREATE ROLE a_login LOGIN PASSWORD '...';",
        f"--     GRANT {identifier(names[WORKER])} TO a_login;",
        "-- Another archive on the same server gets roles of its own: `archiver roles --print --prefix OTHER`.",
        "BEGIN;",
        f"{LOCK_ROLES};",
    ]
    for role, name in names.items():
        lines += ["", f"-- {role.kind}: {role.purpose}.", _creation(role, name)]
    lines += ["", _do(_ARCHIVE)]
    for role, name in names.items():
        lines += ["", *_reset(name), *(f"GRANT {each.sql} TO {identifier(name)};" for each in role.grants)]
        if role is WORKER and keep_history:
            lines += [f"GRANT {each.sql} TO {identifier(name)};   -- for database.keep_history" for each in PRUNING]
    return "\n".join([*lines, "COMMIT;", ""])


_ARCHIVE = """
BEGIN
    IF pg_catalog.to_regclass('archive_queue') IS NULL THEN
        RAISE EXCEPTION USING MESSAGE = 'there is no archive in the database ' || current_database(),
            HINT = 'run `archiver migrate` first, and this in the archive''s database';
    END IF;
END"""

_CREATION = """
DECLARE
    made_as text;
    elsewhere text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN
        CREATE ROLE {name} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
        COMMENT ON ROLE {name} IS {mark};
    END IF;
    SELECT pg_catalog.shobj_description(oid, 'pg_authid') INTO made_as FROM pg_catalog.pg_roles WHERE rolname = {text};
    IF made_as IS DISTINCT FROM {mark} THEN
        RAISE EXCEPTION USING MESSAGE = {refusal}, HINT = 'choose another --prefix';
    END IF;
    SELECT string_agg(DISTINCT b.datname, ', ') FILTER (WHERE b.datname <> current_database()) INTO elsewhere
    FROM pg_catalog.pg_roles r
    JOIN pg_catalog.pg_shdepend d ON d.refclassid = 'pg_catalog.pg_authid'::regclass::oid AND d.refobjid = r.oid
    JOIN pg_catalog.pg_database b ON b.oid = d.dbid
    WHERE r.rolname = {text} HAVING NOT bool_or(b.datname = current_database());
    IF elsewhere IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = {text} || ' serves the archive in the database ' || elsewhere,
            HINT = 'choose another --prefix: who may work there would work here, too';
    END IF;
END"""

# An administrator runs it: where everybody may create in the schema, nothing of others must fit better than the server's own.
_SCHEMA = """
BEGIN
    EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I',
        (SELECT relnamespace::regnamespace::text FROM pg_catalog.pg_class WHERE oid = 'archive_queue'::regclass::oid),
        {text}::text);
END"""


def _creation(role: Role, name: str) -> str:
    refusal = f"the role {name} was not made for this: it lacks the comment that says so"
    mark = literal(f"{MARK}{role.kind}")
    return _do(_CREATION.format(name=identifier(name), text=literal(name), mark=mark, refusal=literal(refusal)))


def _reset(name: str) -> list[str]:
    """Take away whatever it was granted here before."""
    tables, functions = ", ".join(TABLES + VIEWS), ", ".join(FUNCTIONS)
    return [
        _do(_SCHEMA.format(text=literal(name))),
        f"REVOKE ALL ON {tables} FROM {identifier(name)};",
        f"REVOKE ALL ON FUNCTION {functions} FROM {identifier(name)};",
    ]


def _do(body: str) -> str:
    """As a statement. The name of a role may have any characters, that which would end the body, too."""
    tag = "do"
    while f"${tag}$" in body:
        tag += "_"
    return f"DO ${tag}${body} ${tag}$;"


@dataclass(frozen=True)
class MadeRole:
    """A role that was made so, and was given its rights on this archive."""

    name: str
    role: Role


_MARKED = """
    SELECT r.oid, r.rolname AS name, substr(d.description, length($1) + 1) AS kind
    FROM pg_roles r JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
    WHERE starts_with(d.description, $1) AND NOT r.rolsuper ORDER BY r.rolname"""

# Each name goes to the parser of its kind alone: before Postgres 16 the other one does not say NULL but fails.
_GRANTED_TABLE = """
    SELECT EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = to_regclass($2) AND a.grantee = $1 AND a.privilege_type = $3)"""

_GRANTED_FUNCTION = """
    SELECT EXISTS (SELECT FROM pg_proc p, aclexplode(p.proacl) a
                   WHERE p.oid = to_regprocedure($2) AND a.grantee = $1 AND a.privilege_type = $3)"""


async def made_roles(connection: AnyConnection) -> list[MadeRole]:
    """Those of this archive: no other archive's on the same server, and none that only calls itself so."""
    found = []
    kinds = {role.kind: role for role in ROLES}
    for row in await connection.fetch(_MARKED, MARK):
        role = kinds.get(row["kind"])
        if role is None:
            continue
        granted = _GRANTED_FUNCTION if role.proof.privilege == "EXECUTE" else _GRANTED_TABLE
        if await connection.fetchval(granted, row["oid"], role.proof.on, role.proof.privilege):
            found.append(MadeRole(row["name"], role))
    return found


async def grant_again(database: Database) -> list[str]:
    """Give the roles that were made so what they need of the tables as they are now, and take nothing away. Returns the names of
    those that lacked something. The caller owns the tables, and has migrated them.
    """
    lacked = []
    async with database.connection() as connection, connection.transaction():
        await connection.execute(LOCK_ROLES)
        for made in await made_roles(connection):
            before = await connection.fetchval(_RIGHTS)
            await connection.execute("; ".join(f"GRANT {each.sql} TO {identifier(made.name)}" for each in made.role.grants))
            if before != await connection.fetchval(_RIGHTS):
                lacked.append(made.name)
    return lacked


_RIGHTS = """
    SELECT md5(string_agg(acl, ' ' ORDER BY acl)) FROM (
        SELECT oid::text || relacl::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relacl IS NOT NULL
        UNION ALL
        SELECT attrelid || attname || attacl::text FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND attacl IS NOT NULL
        UNION ALL
        SELECT oid::text || proacl::text FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proacl IS NOT NULL
    ) a (acl)"""
