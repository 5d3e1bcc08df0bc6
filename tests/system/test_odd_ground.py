"""Hosts, databases and stores as people have them: each is named with what to do, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.conftest import is_recording
from tests.disks import disk
from tests.system.conftest import Program, archived, eventually

ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale of ASCII, as Python takes it for one."""


async def finding(archiver: Program, check: str, **environment: str) -> tuple[int, dict[str, str]]:
    """How doctor ends, and what it says of one check."""
    result = await archiver("doctor", "--json", environment=environment)
    found = {each["check"]: each for each in result.document["findings"]}
    assert found.get(check, {"hint": "none"})["hint"] or found[check]["verdict"] == "ok"
    return result.code, found.get(check, {"verdict": "", "message": "", "hint": ""})


def limited(archiver: Program, files: int) -> None:
    archiver.command = ("bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *archiver.command)


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else ["gone"]


def make(folder: Path) -> None:
    folder.mkdir()


def move(source: Path, target: Path) -> None:
    source.rename(target)


def lose_one(folder: Path) -> None:
    next(path for path in folder.rglob("*") if path.is_file()).unlink()


def limit_files(pid: int, number: int) -> None:
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={number}:"], check=True)


@contextmanager
def bound(backing: Path, store: Path) -> Iterator[None]:
    """A disk of which the store is the mount point."""
    subprocess.run(["mount", "--bind", backing, store], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", store], check=True)


# --- open files


async def test_few_files_make_a_worker_take_fewer_sessions_at_once(archiver: Program, simulator: Simulator, sql: Any) -> None:
    ids = [f"s-{n}" for n in range(30)]
    for each in ids:
        simulator.script({"session_id": each, "recordings": [{"audio": {"bytes": 200_000}}] * 2})
    assert (await archiver("enqueue", *ids)).code == 0
    limited(archiver, 64)
    running = await archiver.start("worker", "--drain", environment={"ARCHIVER_WORKER__CONCURRENCY": "200"})
    lowered = await running.logged("concurrency_lowered")
    assert 1 <= lowered["concurrency"] < 10
    assert "LimitNOFILE" in lowered["hint"]
    assert (await running.ended(timeout=60)).code == 0
    rows = await sql.fetch("SELECT state, failures, checks, crashes, count(*) FROM archive_sessions GROUP BY 1, 2, 3, 4")
    assert [tuple(row) for row in rows] == [("archived", 0, 0, 0, 30)]
    assert not [line for line in running.events if line["level"] == "error"]
    code, found = await finding(archiver, "open files")
    assert (code, found["verdict"]) == (0, "warning")
    assert "LimitNOFILE" in found["hint"]


async def test_too_few_files_for_one_session_are_told(archiver: Program) -> None:
    limited(archiver, 40)
    (await archiver("worker", "--drain")).refused(2, "40 files open", "LimitNOFILE")
    code, found = await finding(archiver, "open files")
    assert (code, found["verdict"]) == (3, "failure")


async def test_files_that_run_out_all_the_same_cost_no_attempt(archiver: Program, simulator: Simulator, sql: Any) -> None:
    """Somebody takes them away from a worker that is at work, and gives them back."""
    ids = [f"s-{n}" for n in range(4)]
    for each in ids:
        simulator.script({"session_id": each})
    running = await archiver.start("worker")
    await running.logged("worker_started")
    pid = running.process.pid
    held = len(await asyncio.to_thread(os.listdir, f"/proc/{pid}/fd"))
    limit_files(pid, held)
    assert (await archiver("enqueue", *ids)).code == 0
    await running.logged("open_files_exhausted")
    limit_files(pid, 1024)

    async def done() -> bool:
        await sql.execute("UPDATE archive_queue SET run_at = now() WHERE state = 'pending' AND run_at > now()")
        return await sql.fetchval("SELECT every(state = 'archived') FROM archive_sessions") is True

    await eventually(done, timeout=30)
    assert await sql.fetchval("SELECT sum(failures) FROM archive_sessions") == 0
    running.send(signal.SIGTERM)
    assert (await running.ended()).code == 143


# --- locales and readers


async def test_a_locale_that_is_not_utf8_ends_no_command(archiver: Program, simulator: Simulator) -> None:
    simulator.script({"session_id": "s-1", "recordings": [{"file_name": "Gespräch №1.wav"}]})
    assert (await archiver("enqueue", "s-1", environment=ASCII)).code == 0
    assert (await archiver("worker", "--drain", environment=ASCII)).code == 0
    (file,) = (path for path in (archiver.folder / "store").rglob("*") if is_recording(path))
    assert file.name == "Gespräch №1.wav", "as every other worker names it"
    shown = await archiver("show", "s-1", environment=ASCII)
    assert (shown.code, r"Gespr\xe4ch \u21161.wav" in shown.stdout) == (0, True), shown
    assert (await archiver("verify", environment=ASCII)).code == 0
    file.write_bytes(b"changed")
    told = await archiver("verify", environment=ASCII)
    assert (told.code, r"Gespr\xe4ch" in told.stdout) == (3, True), told
    latin = await archiver.shell("PYTHONIOENCODING=latin-1 archiver verify | iconv -f latin1")
    assert (latin.code, r"Gespräch \u21161" in latin.stdout) == (3, True), latin
    code, found = await finding(archiver, "locale", **ASCII)
    assert (code, found["verdict"], "LANG=C.UTF-8" in found["hint"]) == (0, "warning", True)


async def test_options_of_python_that_keep_it_from_utf8_are_borne(archiver: Program) -> None:
    python, *module = archiver.command
    for options in (["-X", "utf8=0"], ["-E"], ["-I"]):
        archiver.command = (python, *options, *module)
        assert (await archiver("--version", environment=ASCII, timeout=20)).code == 0


async def test_a_log_that_nobody_reads_does_not_stop_the_archive(archiver: Program, simulator: Simulator, sql: Any) -> None:
    ids = [f"s-{n}" for n in range(100)]
    for each in ids:
        simulator.script({"session_id": each})
    assert (await archiver("enqueue", *ids)).code == 0
    reader, writer = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *archiver.command, "--config", str(archiver.config), "--log-level", "debug", "worker",
            cwd=archiver.folder, env=archiver.environment, stdin=asyncio.subprocess.DEVNULL, stderr=writer,
        )  # fmt: skip

        async def done() -> bool:
            return await sql.fetchval("SELECT every(state = 'archived') FROM archive_sessions") is True

        try:
            await eventually(done, timeout=40)
            assert select.select([], [writer], [], 0)[1] == [], "the pipe is full"
            assert await sql.fetchval("SELECT count(*) FROM archive_workers WHERE expires_at > now()") == 1
        finally:
            process.terminate()
            code = await asyncio.wait_for(process.wait(), 20)
        assert code == 143
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_terminal_that_goes_away_ends_a_worker_in_order_unless_that_is_ignored(archiver: Program, sql: Any) -> None:
    plain = archiver.command
    leader, terminal = os.openpty()
    try:
        # A terminal that the leader of a session opens becomes the session's.
        archiver.command = ("sh", "-c", f'exec "$@" 3<>{os.ttyname(terminal)}', "sh", *plain)
        # What is ignored here is ignored by what is started here: these tests may run under nohup themselves.
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
        try:
            running = await archiver.start("worker")
        finally:
            signal.signal(signal.SIGHUP, before)
        await running.logged("worker_started")
        running.send(signal.SIGHUP)
        assert (await running.ended()).code == 129
    finally:
        os.close(leader)
        os.close(terminal)
    assert await sql.fetchval("SELECT count(*) FROM archive_workers") == 0
    archiver.command = ("nohup", *plain)
    running = await archiver.start("worker")
    await running.logged("worker_started")
    running.send(signal.SIGHUP)
    running.send(signal.SIGTERM)
    ended = await running.ended()
    assert ended.code == 143
    assert "config_reload" not in ended.stderr


# --- databases


async def test_a_read_only_database_is_told(archiver: Program, sql: Any) -> None:
    name = await sql.fetchval("SELECT current_database()")
    await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    code, found = await finding(archiver, "database")
    assert (code, found["verdict"]) == (3, "failure")
    assert "takes no writes" in found["message"]
    assert "primary" in found["hint"]


async def test_a_database_that_cannot_hold_every_name_is_told(
    archiver: Program, data: dict[str, Any], latin_database_url: str
) -> None:
    data["database"]["url"] = latin_database_url
    archiver.configure(data)
    code, found = await finding(archiver, "database")
    assert (code, found["verdict"]) == (3, "failure")
    assert "LATIN1" in found["message"]
    assert "ENCODING 'UTF8'" in found["hint"]


async def test_an_auditor_who_may_read_two_tables_verifies_on_a_standby_too(
    archiver: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    """Read-only is what a standby is to a client."""
    await archived(archiver, simulator, "s-1")
    role = f"auditor_{await sql.fetchval('SELECT current_database()')}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        await sql.execute(f"GRANT SELECT ON archived_recordings, archive_sessions, archive_migrations TO {role}")
        await sql.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        place = data["database"]["url"].rpartition("@")[2]
        data["database"]["url"] = f"postgresql://{role}:x@{place}"
        archiver.configure(data)
        result = await archiver("verify")
        assert (result.code, "1 of 1 files equal" in result.stdout) == (0, True), result
        assert "not kept" in result.stderr
        assert (await archiver("get", "s-1")).code == 0
        (await archiver("worker", "--drain")).refused(1, "takes no writes")
    finally:
        await sql.execute(f"DROP OWNED BY {role}")
        await sql.execute(f"DROP ROLE {role}")


# --- whose store it is


@pytest.fixture
async def used(archiver: Program, simulator: Simulator, sql: Any) -> Path:
    """The store of an archive with two recordings."""
    for each in ("s-1", "s-2"):
        simulator.script({"session_id": each})
        await sql.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', $1)", each)
    assert (await archiver("worker", "--drain")).code == 0
    return archiver.folder / "store"


@pytest.fixture
async def other_database(postgres: str, template: str, database_url: str) -> AsyncIterator[str]:
    """The URL of another archive's migrated database."""
    name = database_url.rpartition("/")[2] + "_other"
    server = await asyncpg.connect(postgres)
    try:
        await server.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        url = f"{database_url}_other"
        other = await asyncpg.connect(url)
        await other.execute("UPDATE archive_identity SET archive_id = gen_random_uuid()")
        await other.close()
        yield url
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await server.close()


async def test_a_store_folder_that_vanished_is_not_made_anew(archiver: Program, used: Path) -> None:
    move(used, used.with_name("elsewhere"))
    code, found = await finding(archiver, "store: identity")
    assert (code, found["verdict"]) == (3, "failure")
    assert "mount it" in found["hint"]
    (await archiver("worker", "--drain")).refused(1, MARKER, "mount it", "store adopt")
    assert listed(used) == ["gone"]
    move(used.with_name("elsewhere"), used)
    assert (await finding(archiver, "store: identity"))[1]["verdict"] == "ok"


async def test_an_empty_mount_point_is_no_store(archiver: Program, used: Path, simulator: Simulator) -> None:
    move(used, used.with_name("unmounted"))
    simulator.script({"session_id": "s-3"})
    assert (await archiver("enqueue", "s-3")).code == 0
    with disk(used, "8m"):
        code, found = await finding(archiver, "store: identity")
        assert (code, found["verdict"]) == (3, "failure")
        (await archiver("worker", "--drain")).refused(1, MARKER, "mount")
        (await archiver("store", "adopt")).refused(1, "none of 2 recorded files", "mount its disk")
        told = await archiver("verify")
        assert (told.code, "mount it" in told.stderr, told.stdout.count("missing: ")) == (3, True, 2)
        assert listed(used) == []


async def test_a_disk_that_is_unmounted_under_a_worker_gets_nothing_written_below_it(
    archiver: Program, simulator: Simulator, sql: Any, data: dict[str, Any]
) -> None:
    store = archiver.folder / "store"
    backing = archiver.folder / "backing"
    store.mkdir()
    with disk(backing, "8m"):
        with bound(backing, store):
            running = await archiver.start("worker")
            await running.logged("worker_started")
            simulator.script({"session_id": "s-1"})
            assert (await archiver("enqueue", "s-1")).code == 0
            await running.logged("session_archived")
        simulator.script({"session_id": "s-2"})
        assert (await archiver("enqueue", "s-2")).code == 0
        told = await running.logged("store_unavailable")
        assert MARKER in told["message"]
        assert listed(store) == []
        with bound(backing, store):
            await running.logged("session_archived", times=2, timeout=30)
            running.send(signal.SIGTERM)
            assert (await running.ended()).code == 143
            assert (await archiver("verify")).code == 0
    assert await sql.fetchval("SELECT sum(failures) FROM archive_sessions") == 0


async def test_the_store_of_another_archive_is_refused(
    archiver: Program, data: dict[str, Any], used: Path, other_database: str
) -> None:
    other = await asyncpg.connect(other_database)
    await other.execute("INSERT INTO archive_queue (bot, session_id) VALUES ('bot', 's-1')")
    data["database"]["url"] = other_database
    archiver.configure(data)
    before = listed(used)
    for words in (["worker", "--drain"], ["migrate"]):
        (await archiver(*words)).refused(1, "is the store of archive", "storage.url or database.url")
    code, found = await finding(archiver, "store: identity")
    assert (code, found["verdict"]) == (3, "failure")
    assert listed(used) == before
    await other.close()


async def test_a_database_without_sessions_becomes_the_archive_of_its_store(
    archiver: Program, data: dict[str, Any], used: Path, other_database: str, sql: Any
) -> None:
    data["database"]["url"] = other_database
    archiver.configure(data)
    _, found = await finding(archiver, "store: identity")
    assert (found["verdict"], "becomes" in found["message"]) == ("warning", True)
    running = await archiver.start("worker", "--drain")
    assert (await running.logged("identity_taken"))["level"] == "warning"
    assert (await running.ended()).code == 0
    other = await asyncpg.connect(other_database)
    ours = await sql.fetchrow("SELECT archive_id, created_at FROM archive_identity")
    assert await other.fetchrow("SELECT archive_id, created_at FROM archive_identity") == ours
    await other.close()


async def test_a_store_of_a_version_that_wrote_no_marker_works_on_and_is_adopted(
    archiver: Program, used: Path, simulator: Simulator, sql: Any
) -> None:
    await forget_marker(used, sql)
    code, found = await finding(archiver, "store: identity")
    assert (code, found["verdict"]) == (0, "warning")
    assert "2 of 2 recorded files" in found["message"]
    assert "archiver store adopt" in found["hint"]
    simulator.script({"session_id": "s-3"})
    assert (await archiver("enqueue", "s-3")).code == 0
    running = await archiver.start("worker", "--drain")
    assert "store adopt" in (await running.logged("store_unmarked"))["hint"]
    assert (await running.ended()).code == 0
    assert not (used / MARKER).exists()
    adopted = await archiver("store", "adopt")
    assert (adopted.code, "3 of 3 recorded files" in adopted.stdout) == (0, True), adopted
    assert (await finding(archiver, "store: identity"))[1]["verdict"] == "ok"
    assert (await archiver("store", "adopt")).code == 0


async def test_migrate_marks_a_store_that_has_the_recorded_files(archiver: Program, used: Path, sql: Any) -> None:
    await forget_marker(used, sql)
    result = await archiver("migrate")
    assert (result.code, "is the store of archive" in result.stderr) == (0, True)
    assert (used / MARKER).is_file()
    assert (await archiver("migrate")).stderr == ""


async def test_a_store_without_a_marker_that_has_none_of_the_files_is_refused(archiver: Program, used: Path, sql: Any) -> None:
    """As after an upgrade with the disk not mounted."""
    await forget_marker(used, sql)
    move(used, used.with_name("unmounted"))
    make(used)
    for words in (["migrate"], ["worker", "--drain"], ["store", "adopt"]):
        (await archiver(*words)).refused(1, "none of 2 recorded files", "mount its disk")
    assert (await finding(archiver, "store: identity"))[1]["verdict"] == "failure"
    assert listed(used) == []


async def test_a_store_that_is_lost_is_replaced_on_purpose_alone(archiver: Program, used: Path) -> None:
    move(used, used.with_name("broken"))
    make(used)
    (await archiver("worker", "--drain")).refused(1, "store adopt --force")
    replaced = await archiver("store", "adopt", "--force")
    assert (replaced.code, "0 of 2 recorded files" in replaced.stdout) == (3, True)
    assert (await archiver("worker", "--drain")).code == 0
    assert (await archiver("verify")).code == 3


async def test_after_an_older_dump_was_restored_its_own_store_is_adopted(archiver: Program, used: Path, sql: Any) -> None:
    """A dump of a version without identity gets a new one when it is migrated."""
    marker = (used / MARKER).read_bytes()
    await sql.execute("UPDATE archive_identity SET archive_id = gen_random_uuid(), store_marked_at = NULL, store_url = NULL")
    (await archiver("worker", "--drain")).refused(1, "is the store of archive", "restored from an older dump", "store adopt")
    adopted = await archiver("store", "adopt")
    assert (adopted.code, "2 of 2 recorded files" in adopted.stdout) == (0, True)
    assert str(await sql.fetchval("SELECT archive_id FROM archive_identity")).encode() in marker
    assert (await archiver("worker", "--drain")).code == 0


async def test_migrate_marks_no_store_with_files_that_nobody_knows(archiver: Program) -> None:
    store = archiver.folder / "store"
    store.mkdir()
    (store / "somebody's").write_bytes(b"x")
    result = await archiver("migrate")
    assert (result.code, "archiver store adopt" in result.stderr) == (0, True)
    assert not (store / MARKER).exists()
    assert (await finding(archiver, "store: identity"))[1]["verdict"] == "warning"
    assert (await archiver("store", "adopt")).code == 0
    assert (await archiver("migrate")).stderr == "", "it need not be asked for again"


async def test_a_store_that_lost_some_files_is_adopted_and_that_is_said(archiver: Program, used: Path, sql: Any) -> None:
    await forget_marker(used, sql)
    lose_one(used)
    await sql.execute(
        "INSERT INTO archived_recordings "
        "(bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id) "
        "SELECT bot, session_id, kind, 2, 'x', 'gone', 1, sha256, 'x', queue_id FROM archived_recordings LIMIT 1"
    )
    (await archiver("store", "adopt")).refused(1, "1 of 3 recorded files", "adopt --force")
    await sql.execute("DELETE FROM archived_recordings WHERE ordinal = 2")
    adopted = await archiver("store", "adopt")
    assert (adopted.code, "1 of 2 recorded files" in adopted.stdout, "missing: bot=bot/" in adopted.stdout) == (3, True, True)
    assert "archiver verify" in adopted.stderr


async def test_a_marker_that_is_no_file_is_told(archiver: Program, used: Path) -> None:
    (used / MARKER).unlink()
    (used / MARKER).symlink_to("/dev/null")
    (await archiver("worker", "--drain")).refused(1, "not a regular file")
    code, found = await finding(archiver, "store: identity")
    assert (code, found["verdict"]) == (3, "failure")


async def test_a_moved_store_is_the_same_and_its_old_place_is_noticed(
    archiver: Program, data: dict[str, Any], used: Path
) -> None:
    moved = used.with_name("moved")
    move(used, moved)
    data["storage"]["url"] = moved.as_uri()
    archiver.configure(data)
    running = await archiver.start("worker", "--drain")
    told = await running.logged("store_moved")
    assert (told["from_url"], told["to_url"]) == (used.as_uri(), moved.as_uri())
    assert (await running.ended()).code == 0
    assert (await archiver("verify")).code == 0


async def test_workers_of_a_folder_and_of_a_bucket_do_not_mix(archiver: Program, sql: Any) -> None:
    await sql.execute("INSERT INTO archive_workers (host, pid, version, store, expires_at) "
                      "VALUES ('there', 7, '0.2.0', 's3://calls/audit', now() + interval '1 h')")  # fmt: skip
    (await archiver("worker", "--drain")).refused(1, "host there, process 7", "s3://calls/audit", "storage.url")
    assert await sql.fetchval("SELECT count(*) FROM archive_workers") == 1
    code, found = await finding(archiver, "store: identity")
    assert (code, found["verdict"]) == (3, "failure")
    await sql.execute("UPDATE archive_workers SET store = 'file:///mnt/elsewhere'")  # the same disk may be mounted there
    running = await archiver.start("worker", "--drain")
    assert (await running.logged("stores_differ"))["other_store"] == "file:///mnt/elsewhere"
    assert (await running.ended()).code == 0
    assert (await finding(archiver, "store: identity"))[1]["verdict"] == "warning"


async def test_two_hosts_do_not_each_mark_a_folder_of_their_own(archiver: Program, data: dict[str, Any]) -> None:
    running = []
    for name in ("one", "two"):
        data["storage"]["url"] = (archiver.folder / name).as_uri()
        archiver.configure(data, f"{name}.toml")
        running.append(await archiver.start("worker", "--drain"))
    assert sorted([(await each.ended()).code for each in running]) == [0, 1]


async def forget_marker(store: Path, sql: Any) -> None:
    """As a version left it that knew of no markers."""
    (store / MARKER).unlink()
    await sql.execute("UPDATE archive_identity SET store_marked_at = NULL, store_url = NULL")
