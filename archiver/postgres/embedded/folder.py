"""The folder of an embedded Postgres: its files, its locks, and who owns them. Standard library only: the keeper runs it too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_BYTES = 10_000_000  # beyond this, PATH/log becomes PATH/log.1


class Problem(Exception):
    """Why there is no server. Crosses the pipe from the keeper as JSON, and becomes an EmbeddedUnavailable."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def describe_problem(error: Exception, path: Path) -> dict[str, str]:
    """The arguments of a Problem that says the same."""
    if isinstance(error, OSError):
        hint = "run archiver as an ordinary user who owns the folder" if isinstance(error, PermissionError) else ""
        return {"message": f"{path}: {error.strerror or error} ({error.filename or type(error).__name__})", "hint": hint}
    return {"message": str(error), "hint": getattr(error, "hint", "")}


class Folder:
    """PATH, opened and made private. Raises OSError, and Problem where it holds files that are not ours.

    Files are opened relative to the open folder, never through a link, and must belong to `owner`: the current user or, where
    root runs archiver in the folder of an account, that account. `account` runs Postgres: the owner or, in a folder of root's,
    `nobody`, who owns nothing but the data.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.ExitStack() as on_error, os.scandir(self.fd) as entries:
            on_error.callback(os.close, self.fd)
            found = {entry.name for entry in entries} - {"lost+found"}
            if found and "users.lock" not in found:
                raise Problem(f"{path} holds other files and no archiver database", "choose a new or an empty folder")
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
        """Take away others' right to write, who could replace our files. A folder of another user's is left as it is: a volume
        of root's, say, that a group may write to."""
        folder = os.fstat(self.fd)
        if folder.st_uid != os.geteuid() or not folder.st_mode & 0o022:
            return
        with contextlib.suppress(FileNotFoundError):
            user = os.stat("users.lock", dir_fd=self.fd, follow_symlinks=False).st_uid
            if user not in (self.owner[0], self.account[0]):
                raise self._foreign("users.lock", user, self.owner[0])
        os.fchmod(self.fd, stat.S_IMODE(folder.st_mode) & ~0o022)

    def _take_back(self, nobody: tuple[int, int]) -> None:
        """Take back what earlier versions gave to `nobody`, so that only root can replace anything in it."""
        os.fchown(self.fd, 0, nobody[1])
        os.fchmod(self.fd, 0o710)  # its server may run still, and has to get at the data
        with contextlib.suppress(FileNotFoundError):
            if (owner := os.stat("data", dir_fd=self.fd, follow_symlinks=False).st_uid) != nobody[0]:
                os.fchown(self.fd, *nobody)
                raise self._foreign("data", owner, nobody[0])

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open or create a plain file: mode 0600, the owner's, not inherited by other programs."""
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
                os.fchown(fd, *self.owner)  # from an earlier version: only `nobody` can have put it there
            elif found.st_uid != self.owner[0]:
                raise self._foreign(name, found.st_uid, self.owner[0])
            if found.st_mode & 0o077:
                os.fchmod(fd, 0o600)
            on_error.pop_all()
        return fd

    def _no_plain_file(self, name: str) -> Problem:
        message = f"{self.path / name} is not a plain file with a single name"
        return Problem(message, "replace the link, pipe or folder by the file itself, or remove it")

    def _foreign(self, name: str, uid: int, expected: int) -> Problem:
        message = f"{self.path / name} belongs to uid {uid}, not to uid {expected}"
        hint = f"run archiver as uid {uid}; or, if the file is archiver's own, chown it to {expected}"
        return Problem(message, hint)

    @contextlib.contextmanager
    def opened(self, name: str, flags: int = os.O_RDWR) -> Iterator[int]:
        """As `open`; closed at the end."""
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
            hint = f"write it again, with mode 0600, from {self.path}/pg_service.conf"
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
        """The server's data folder, opened. It may be a link: its owner is checked."""
        fd = os.open("data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.fd)
        try:
            if (uid := os.fstat(fd).st_uid) != self.account[0]:
                raise self._foreign("data", uid, self.account[0])
            yield fd
        finally:
            os.close(fd)

    def read_data(self, name: str) -> str:
        """The first 4 KiB of a file of the server's. Whoever runs as the account may have replaced it, so it is checked."""
        with self.data() as data:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=data)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != self.account[0]:
                raise FileNotFoundError(errno.ENOENT, "not the server's own", name)
            return os.read(fd, 4096).decode(errors="replace")
        finally:
            os.close(fd)


def rotate_log(log: int, old: int) -> None:
    """Move a log longer than LOG_BYTES into the old one. Needs open files only, no right to the folder."""
    if os.fstat(log).st_size > LOG_BYTES:
        os.ftruncate(old, 0)
        while piece := os.pread(log, 2**20, size := os.fstat(old).st_size):
            os.pwrite(old, piece, size)
        os.ftruncate(log, 0)  # every writer appends, so the next line is the first


def try_lock(fd: int, kind: int) -> bool:
    """Take or change a lock without waiting; False if somebody else has it. A refused change leaves no lock (flock(2))."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def port_belongs_to(uid: int, port: int) -> bool:
    """Whether this account listens on this port of 127.0.0.1. True where the system does not tell (other than Linux)."""
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
        if not port_belongs_to(folder.account[0], int(lines[3])):
            return None
        socket.create_connection(("127.0.0.1", int(lines[3])), timeout=5).close()
        return int(lines[3])
    except (OSError, Problem, IndexError, ValueError, OverflowError):
        return None
