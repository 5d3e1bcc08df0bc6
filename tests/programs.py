"""Programs of the system that the archiver is held against."""

from __future__ import annotations

import os
import shutil

import pytest


def installed(name: str, package: str, *, beside: str = "") -> str:
    """The path of a program, looked for on PATH and in the folder `beside`. Skips the test without it; CI must have it."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:{beside}" if beside else None)
    if found is None:
        missing = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)
    return found
