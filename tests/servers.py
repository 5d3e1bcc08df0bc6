"""Servers of a test run: the first process to need one starts it, all share it, and it ends with the last one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READY_SECONDS = 60

_keepers: list[subprocess.Popen[bytes]] = []
"""They outlive those who start them, as others may still need the server."""

_given: set[int] = set()
"""The ports that `free_ports` has told of."""


@dataclass(frozen=True)
class Ready:
    """When a server is ready: its root answers with one of these statuses; `then` is called with its URL."""

    answers: Collection[int]
    then: Callable[[str], None]


@contextmanager
def joined(
    folder: Path,
    name: str,
    binary: Path,
    command: Callable[[int], list[str]],
    ready: Ready,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The URL of this run's server, which `command` starts at a port; `make .venv-NAME/.ready` installs it."""
    if not binary.exists():
        pytest.fail(f"{binary} is missing: run `make .venv-{name}/.ready`", pytrace=False)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "start.lock").open("a") as starting, (folder / "users.lock").open("a") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not (folder / "url").exists():
            url = _started(folder, command, ready, environment or {})
            ready.then(url)
            (folder / "url").write_text(url)
        url = (folder / "url").read_text()
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield url


def _started(folder: Path, command: Callable[[int], list[str]], ready: Ready, environment: Mapping[str, str]) -> str:
    """The URL of a server that answers. One whose port was taken meanwhile ends at once, and is tried at another."""
    for _ in range(3):
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.server_keeper", str(folder), *command(port)],
            cwd=ROOT, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        _keepers.append(keeper)
        if _answers(url, keeper, folder / "server.log", ready.answers):
            return url
    pytest.fail(f"it ends by itself: {(folder / 'server.log').read_text(errors='replace')[-3000:]}", pytrace=False)


def _answers(url: str, keeper: subprocess.Popen[bytes], log: Path, answers: Collection[int]) -> bool:
    """Whether it comes to answer as its kind does, which is how it says that it is ready; False if it ends before."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if keeper.poll() is not None:
            return False
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            try:
                status = urllib.request.urlopen(f"{url}/", timeout=2).status
            except urllib.error.HTTPError as error:
                error.close()
                status = error.code
            if status in answers:
                return True
        time.sleep(0.05)
    pytest.fail(f"no answer of {url} for {READY_SECONDS} s: {log.read_text(errors='replace')[-3000:]}", pytrace=False)


def free_ports(count: int) -> list[int]:
    """So many ports of loopback that nobody listens on, none given twice. They are not of those that systems give to connections:
    such a port may be a client's by the time that its server takes it.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                ports.append(port)
    return ports
