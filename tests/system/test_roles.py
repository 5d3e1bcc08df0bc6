"""Every command under the role that docs/roles.md names for it: real logins, the printed SQL, and a server that has TLS."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from archiver.cli.app import COMMANDS as EVERY_COMMAND
from archiver.evidence.keys import SealingKey
from archiver.postgres.roles import AUDITOR, COMMANDS, ENQUEUER, OPERATING, READING, ROLES, WEB, WORKER, WORKING, Role
from archiver.simulator.platform import Simulator
from tests.postgres.test_tls import Authority, authority, front
from tests.system.conftest import Program, Result

__all__ = ["authority"]

SEVERAL = """
import importlib, json, os, signal, sys, tempfile
from archiver.cli import app
*common, several = sys.argv[1:]
several = json.loads(several)
for arguments in several:
    importlib.import_module(f"archiver.cli.{arguments[0]}")
results = []
for arguments in several:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        if not (child := os.fork()):
            signal.alarm(20)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv[1:] = [*common, *arguments]
            try:
                app.run()
            except SystemExit as ended:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            finally:
                os._exit(99)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        results.append([code, *texts])
json.dump(results, sys.stdout)
"""
"""Commands one after the other, each in a child that has the modules: to load these for each takes longer than what it does."""

OUTSIDE = {"config", "demo", "init", "roles", "simulate"}
"""Commands that use no database, or one of their own."""

ARGUMENTS: dict[str, list[str]] = {
    "status": ["--json"], "workers": [], "list": ["--state", "archived"], "find": ["--user", "nobody"], "show": ["s-1"],
    "get": ["s-1", "--output", "got"], "proof": ["s-1", "--output", "a-proof"], "export": ["bag", "--session", "s-1"], "sums": [],
    "verify": [], "audit": [], "checkpoint": [], "nights": [], "healthcheck": [],
    "retry": ["s-retry"], "accept": ["s-accept", "--reason", "known"], "cancel": ["s-late", "--reason", "known"],
    "pause": ["--all"], "resume": ["--all"],
    "worker": ["--drain", "--max-wait", "1ms"], "discover": ["--from", "2020-01-01"],
    "nightly": ["--from", "2020-01-01", "--to", "2020-01-02"], "backfill": ["--from", "2020-01-01", "--to", "2020-01-02"],
    "reconcile": ["--from", "2020-01-01", "--to", "2020-01-02"], "repair": [], "seal": [], "recount": [], "doctor": [],
    "enqueue": ["s-2"], "migrate": [], "rebuild": [], "store": ["adopt", "--force"],
    # Last: afterwards the configured key is another.
    "key": ["rotate", "--new", "new.key"],
}  # fmt: skip

UNLIKE_0 = {"healthcheck": 1, "nightly": 3, "backfill": 3, "reconcile": 3, "discover": 3, "worker": 3, "audit": 3}
"""How else these may end here: no worker works, sessions failed, or what the test did by hand was found."""


UNNOTED = {(AUDITOR, "export")}
"""What is done without what it would write: that a session was handed out is noted by workers alone."""


OF_A_ROLE = ("got", "a-proof", "bag", "s-retry", "s-accept", "s-late")
"""Words that are others for each role, so that each has something to do."""


SOME = ("enqueue", "migrate", "rebuild", "retry", "status", "worker")
"""Commands that each role is refused, or runs."""

TO_DO = """
    INSERT INTO archive_queue (bot, session_id, kind, run_at) VALUES
        ('bot', 's-retryROLE', 'recording', now() + interval '1 day'),
        ('bot', 's-lateROLE', 'recording', now() + interval '1 day'),
        ('bot', 's-acceptROLE', 'fax', now());
    UPDATE archive_queue SET state = 'cancelled', reason = 'r', finished_at = now() WHERE session_id = 's-retryROLE'"""


async def several(program: Program, commands: Iterable[str], suffix: str = "") -> dict[str, Result]:
    """Run these commands; what becomes of each."""
    lines = []
    for command in commands:
        words = [word + suffix if word in OF_A_ROLE else word for word in ARGUMENTS[command]]
        lines.append([command, *words])
    kept, program.command = program.command, (sys.executable, "-c", SEVERAL)
    try:
        done = await program(json.dumps(lines), timeout=50)
    finally:
        program.command = kept
    assert done.code == 0, done
    return {line[0]: Result(*result) for line, result in zip(lines, done.document, strict=True)}


@asynccontextmanager
async def logins(archiver: Program, sql: Any, url: str) -> AsyncIterator[Mapping[Role, str]]:
    """The roles, made by what is printed, and a login for each: the URL that it uses."""
    there = urlsplit(url)
    prefix = f"Roles of {there.path[1:]}"
    printed = await archiver("roles", "--print", "--prefix", prefix, environment={"ARCHIVER_CONFIG": "/nowhere"})
    assert printed.code == 0, printed
    names = {role: f'"{prefix}_{role.kind}"' for role in ROLES}
    users = {role: f"{role.kind}_{there.path[1:]}" for role in ROLES}
    try:
        await sql.execute(printed.stdout)
        await sql.execute("; ".join(f"CREATE ROLE {users[role]} LOGIN PASSWORD 'pw' IN ROLE {names[role]}" for role in ROLES))
        yield {role: there._replace(netloc=f"{users[role]}:pw@{there.hostname}:{there.port}").geturl() for role in ROLES}
    finally:
        every = ", ".join([*names.values(), *users.values()])
        await sql.execute("ROLLBACK")
        await sql.execute(f"DROP OWNED BY {every}; DROP ROLE {every}")


def test_every_command_has_its_roles() -> None:
    assert set(COMMANDS) == set(EVERY_COMMAND) - OUTSIDE == set(ARGUMENTS)
    for command in ARGUMENTS:
        importlib.import_module(f"archiver.cli.{command}")


@pytest.mark.parametrize("everything", [False, pytest.param(True, marks=[pytest.mark.thorough, pytest.mark.timeout(180)])])
async def test_every_command_works_under_its_roles_and_no_other(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any, database_url: str, everything: bool
) -> None:
    """Of the refusals a few; thorough: all. That no other statement is run is shown in tests/queue/test_roles.py."""
    for name in ("evidence.key", "new.key"):
        SealingKey.make(archiver.folder / name, "test")
    simulator.script({"session_id": "s-1"})
    simulator.script({"session_id": "s-none", "answers": [{"status": "media_unavailable"}]})
    evidence = {"key_file": "evidence.key", "origin": "archive.example/calls"}
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(logins(archiver, sql, database_url))

        def become(role: Role) -> None:
            archiver.configure(data | {"evidence": evidence, "database": {"url": urls[role]}})

        become(ENQUEUER)
        added = await archiver("enqueue", "s-1", "s-none", "s-failed", "--json")
        assert added.document == {"new": 3, "known": 0, "raised": 0, "rejected": []}
        become(WORKER)
        drained = await archiver("worker", "--drain")
        assert drained.code in (0, 3), drained
        assert await sql.fetchval("SELECT count(*) FROM archived_recordings") == 1
        for role in ROLES:
            await sql.execute(TO_DO.replace("ROLE", role.kind))
            become(role)
            own = {WORKER: {*WORKING, *OPERATING}, AUDITOR: READING, WEB: OPERATING}.get(role, ())
            asked = [each for each in ARGUMENTS if everything or each in own or each in SOME]
            done = await several(archiver, asked, role.kind)
            wrong = {command: result for command, result in done.items() if not as_expected(role, command, result)}
            assert {command: (result.code, result.stderr[-300:]) for command, result in wrong.items()} == {}, role.kind


def as_expected(role: Role, command: str, result: Result) -> bool:
    """Whether the command did its work, or was refused in words, as COMMANDS has it."""
    if "Traceback" in result.stderr or "internal error" in result.stderr:
        return False
    if role in COMMANDS[command]:
        noted = "permission denied" not in result.stderr + result.stdout
        return result.code in (0, UNLIKE_0.get(command, 0)) and noted is not ((role, command) in UNNOTED)
    if command == "doctor" or (command == "repair" and role in (AUDITOR, WEB)):
        return result.code in (0, 3)  # it says what it may not look at; and nothing is to be repaired here
    why = "does not own the tables" if command == "rebuild" and role in (WORKER, AUDITOR, WEB) else "permission denied"
    return result.code not in (0, 3) and why in result.stderr + result.stdout


async def test_a_worker_works_over_tls_and_a_certificate_for_another_name_hears_nothing(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any, database_url: str, authority: Authority
) -> None:
    simulator.script({"session_id": "s-1"})
    await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')")
    async with AsyncExitStack() as stack:
        urls = await stack.enter_async_context(logins(archiver, sql, database_url))
        for name, works in (("other.example", False), ("localhost", True)):
            server, there = await stack.enter_async_context(front(urls[WORKER], authority.certificate(name)))
            query = f"sslmode=verify-full&sslrootcert={authority.file}"
            url = urlsplit(there)._replace(netloc=urlsplit(there).netloc.replace("127.1", "localhost"), query=query).geturl()
            archiver.configure(data | {"database": {"url": url}})
            done = await archiver("worker", "--drain")
            assert (done.code == 0) == works, done
            if not works:
                assert "certificate" in done.stderr
                assert b"pw" not in bytes(server.in_clear + server.inside)
                assert not server.inside
    assert await sql.fetchval("SELECT state FROM archive_queue") == "archived"
