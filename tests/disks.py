"""File systems that are small, and can be filled: mounted in memory, where this user may mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of `size` bytes (`4m`) at `folder`. Skips the test for a user who is not root and may not mount."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        # Without a disk of one's own there is nothing to fill. CI is root, and must not pass this by.
        assert os.geteuid() != 0, mounted.stderr
        pytest.skip(f"may not mount: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """Change it: `ro`, `rw`, `size=64m`."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)
