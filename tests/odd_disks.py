"""File systems that lack something, as many on a network, in a bucket or on a stick do: mounted where this user may."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from tests import fuse_server
from tests.fuse_server import Lacks

__all__ = ["Lacks", "is_mounted", "odd_disk"]

WAIT_SECONDS = 20


@contextmanager
def odd_disk(folder: Path, lacks: Lacks | None = None) -> Iterator[subprocess.Popen[str]]:
    """A file system at `folder`, which is made, that `lacks` what is named and nothing else. It is gone when this ends, or this
    process does; what was kept there then lies in the folder. Yields the process that serves it. Skips the test where this user
    may not mount, but not in CI.
    """
    folder.mkdir()
    # Isolated: what lies beside the program must not hide modules of the standard library, of which it needs no others.
    command = [sys.executable, "-I", "-S", fuse_server.__file__, str(folder), json.dumps(asdict(lacks or Lacks()))]
    # In a session of its own, so that Ctrl-C leaves it alone: it has to be there until everything on it is closed.
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None
        if (answer := server.stdout.readline().strip()) != "mounted":
            _may_not_mount(answer or "see what it said")
        yield server
    finally:
        if said := _end(server, folder):
            print(f"the file system at {folder} failed:\n{said}")
    assert not said, said


def is_mounted(folder: Path) -> bool:
    """Whether a file system is mounted at it: without a look at it, which could hang."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return str(folder.parent.resolve() / folder.name) in [mount.split()[4] for mount in mounts]


def _end(server: subprocess.Popen[str], folder: Path) -> str:
    """Unmount it, whatever is open there. Returns what went wrong."""
    try:
        _, said = server.communicate(timeout=WAIT_SECONDS)  # it ends when its standard input is closed
    except subprocess.TimeoutExpired:
        server.kill()
        _, said = server.communicate(timeout=WAIT_SECONDS)
        said += "it did not end"
    if is_mounted(folder):
        # Nobody serves it any more, and so nothing here waits for an answer.
        subprocess.run(["umount", "--lazy", "--no-canonicalize", str(folder)], check=True, timeout=WAIT_SECONDS)
    return said


def _may_not_mount(why: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"may not mount ({why}): tests need root and /dev/fuse (modprobe fuse; docker --device /dev/fuse)")
    pytest.skip(f"may not mount: {why}")
