"""Debian's pgbouncer before a database of a test, in any of its modes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from tests.programs import installed
from tests.servers import free_ports

READY_SECONDS = 20

Mode: TypeAlias = Literal["session", "transaction", "statement"]


@asynccontextmanager
async def pgbouncer(
    database_url: str, mode: Mode = "transaction", *, processes: int = 1, **settings: object
) -> AsyncIterator[str]:
    """The URL of this database through a pgbouncer of this mode, by the same user and password. `settings` are pgbouncer's own.
    With several `processes`, each with a pool of its own, the system gives each connection to one of them, as a balancer does.
    """
    url = urlsplit(database_url)
    (port,) = free_ports(1)
    with _file(f'"{url.username}" "{unquote(url.password or "")}"\n') as users:
        lines = {
            "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "so_reuseport": int(processes > 1),
            "auth_type": "scram-sha-256", "auth_file": _path(users), "pool_mode": mode, "log_connections": 0,
            "log_disconnections": 0, **settings,
        }  # fmt: skip
        text = f"[databases]\n* = host={url.hostname} port={url.port}\n[pgbouncer]\n"
        text += "".join(f"{name} = {value}\n" for name, value in lines.items())
        with _file(text) as configuration:
            async with contextlib.AsyncExitStack() as running:
                for _ in range(processes):
                    await running.enter_async_context(_running(configuration, users))
                yield url._replace(netloc=f"{url.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()


@contextlib.contextmanager
def _file(text: str) -> Iterator[int]:
    """A file in memory. Whatever account opens it by `_path` needs no way into the folders of this checkout."""
    with os.fdopen(os.memfd_create("pgbouncer", 0), "w") as file:
        file.write(text)
        file.flush()
        yield file.fileno()


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


@asynccontextmanager
async def _running(configuration: int, users: int) -> AsyncIterator[None]:
    """One process, which accepts connections. It ends with us, however we end."""
    program = installed("pgbouncer", "pgbouncer", beside="/usr/sbin")
    # It refuses to run as root.
    account = pwd.getpwnam("nobody")
    switch: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    process = await asyncio.create_subprocess_exec(
        program, _path(configuration), pass_fds=[configuration, users], cwd="/", preexec_fn=partial(_end_with, os.getpid()),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, **switch,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        log = b""
        async with asyncio.timeout(READY_SECONDS):
            while b"process up" not in log:
                line = await process.stderr.readline()
                assert line, log.decode()
                log += line
        reading = asyncio.create_task(process.stderr.read())
        yield
        assert process.returncode is None, (log + await reading).decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await reading


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG; the change of account, which clears it, is past
    if os.getppid() != parent:
        os._exit(1)
