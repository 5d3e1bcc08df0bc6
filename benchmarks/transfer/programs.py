"""The peers that are no Python: found, or installed from Debian's packages where that is possible."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = {"nginx": "nginx", "aria2c": "aria2", "curl": "curl", "openssl": "openssl"}
WHEELS = ("aiohttp", "aiofiles", "aiobotocore", "boto3", "obstore", "uvloop")


class ProgramMissing(Exception):
    """A program is not there and cannot be installed."""


def program(name: str) -> str:
    """Where a program is: beside this Python, on PATH, or where Debian puts servers. Raises ProgramMissing."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise ProgramMissing(f"{name} is missing; on Debian: apt-get install {PACKAGES.get(name, name)}")
    return found


def install_missing(names: Sequence[str]) -> None:
    """Install what is missing, if this is root on Debian; else say what to do. Raises ProgramMissing."""
    missing = []
    for name in names:
        try:
            program(name)
        except ProgramMissing:
            missing.append(name)
    if not missing:
        return
    packages = [PACKAGES[name] for name in missing]
    apt = shutil.which("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise ProgramMissing(f"missing: {', '.join(missing)}; install them, on Debian: apt-get install {' '.join(packages)}")
    # RUNLEVEL: Debian would start the web server as a service of this machine.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    subprocess.run([apt, "update", "-qq"], env=env, check=True, stdout=subprocess.DEVNULL)
    command = [apt, "install", "-qq", "-y", "--no-install-recommends", *packages]
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    for name in missing:
        program(name)


def versions() -> dict[str, str]:
    """What was measured."""
    found = {}
    for name, argument in (
        ("nginx", "-v"), ("curl", "--version"), ("aria2c", "--version"), ("openssl", "version"), ("rclone", "version"),
        ("s5cmd", "version"), ("weed", "version"),
    ):  # fmt: skip
        try:
            said = subprocess.run([program(name), argument], capture_output=True, text=True, check=False)
        except ProgramMissing:
            continue
        if number := re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr):
            found[name] = number[0]
    for name in WHEELS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
