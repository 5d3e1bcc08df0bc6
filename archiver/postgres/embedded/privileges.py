"""Giving up root: as which account Postgres runs, and what it keeps. Standard library only: the keeper runs it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.postgres.embedded.folder import Folder, Problem

if TYPE_CHECKING:
    from collections.abc import Callable


def _prctl(option: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.prctl(option, *(ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4])))
    if result < 0:
        raise OSError(ctypes.get_errno(), "prctl")
    return result


def drop_root(uid: int, gid: int, capability: int | None = None) -> None:
    """Give up root for good, but for one capability. Raises OSError."""
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


def switch_account(uid: int, gid: int, capability: int | None) -> Callable[[], None]:
    """What a child runs between fork and exec: give up root but for one capability, and (Linux) end with its parent."""
    parent = os.getpid()

    def become() -> None:
        if os.geteuid() != uid:
            drop_root(uid, gid, capability)
        if sys.platform == "linux":
            _prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG, after the change of account, which would clear it
            if os.getppid() != parent:
                os._exit(1)

    return become


def find_account_switch(folder: Folder, programs: Path) -> Callable[[], None]:
    """What a child runs before exec, to become the folder's account and still reach the folder and the programs of Postgres.

    Tried in a child: without a capability, or, to get past closed parents, with CAP_DAC_READ_SEARCH or, where a container lacks
    that, CAP_DAC_OVERRIDE. With a capability, root's folder is closed to other processes of `nobody`: who could alter
    the data could use the capability. Raises Problem.
    """
    parent = Path(os.path.realpath(folder.path)).parent
    needed = [(parent, os.X_OK), *((programs / name, os.R_OK | os.X_OK) for name in ("postgres", "initdb"))]
    for capability in (None, 2, 1) if os.geteuid() == 0 and sys.platform == "linux" else (None,):
        become = switch_account(*folder.account, capability)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                become()
                os._exit(not all(os.access(file, how) for file, how in needed))
            os._exit(2)
        if os.waitpid(child, 0)[1] == 0:
            if folder.owner != folder.account:
                os.fchown(folder.fd, 0, folder.account[1])
                os.fchmod(folder.fd, 0o710 if capability is None else 0o700)
            return become
    raise Problem(
        f"uid {folder.account[0]}, as which Postgres has to run, cannot reach {folder.path} or {programs}",
        "run archiver as an ordinary user, or put the folder and the installation where all parents are open",
    )
