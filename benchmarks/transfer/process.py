"""A client process from its start to its end: time, processor time, peak memory."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

RUN_SECONDS = 900.0
PR_SET_CHILD_SUBREAPER = 36

# A process that the system makes by vfork and exec has at least the peak memory of the one that made it: this one, several times
# curl's. So a shell starts the client, leaves it, and it becomes our child as that of a tiny parent.
_LEAVE_BEHIND = 'log=$1; shift; "$@" >"$log" 2>&1 & echo $!'


class ClientFailed(Exception):
    """A client ended with an error, or not at all."""


@dataclass(frozen=True)
class Cost:
    """What a client took. Processor time is of its whole tree of processes, the peak that of the largest one."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def adopt_orphans() -> None:
    """Become the parent of what `Client` leaves behind. Linux only."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Client:
    """A client that runs; left before its end, it is killed with all that it started."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._name = name
        self._log = log
        self._began = time.perf_counter()
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _LEAVE_BEHIND, "sh", str(log), *command],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,  # so that Ctrl-C reaches this process alone, which then ends the client
        )
        self._group = shell.pid
        said, _ = shell.communicate()
        self._pid: int | None = int(said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.wait4(self._pid, 0)

    def wait(self, *, seconds: float = RUN_SECONDS, accept: Sequence[int] = (0,)) -> Cost:
        """Wait for its end. Raises ClientFailed."""
        assert self._pid is not None
        handle = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            if not poll.poll(seconds * 1000):
                raise ClientFailed(f"{self._name} was not done after {seconds:.0f} seconds")
        finally:
            os.close(handle)
        _, status, used = os.wait4(self._pid, 0)
        took = time.perf_counter() - self._began
        self._pid = None
        if (code := os.waitstatus_to_exitcode(status)) not in accept:
            raise ClientFailed(f"{self._name} ended with {code}:\n{self._log.read_text(errors='replace')[-2000:]}")
        return Cost(took, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def run(name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """One client, from start to end."""
    with Client(name, command, log, env=env, cwd=cwd) as client:
        return client.wait()


def cpu_seconds(process: int) -> float:
    """Processor time of a running process, of its children that run, and of those that ended."""
    ticks = _ticks(process, ended=True) + sum(_ticks(child, ended=False) for child in _children(process))
    return ticks / os.sysconf("SC_CLK_TCK")


def _ticks(process: int, *, ended: bool) -> int:
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return sum(int(field) for field in stat[11 : 15 if ended else 13])


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
