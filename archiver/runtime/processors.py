"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def usable_processors(cgroups: Path = _CGROUPS, of: Path = Path("/proc/self/cgroup")) -> int:
    """Those that it may run on, but no more than the time that its container has (`cpu.max`); at least one."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(int(share) for share in _shares(cgroups, of))]))


def _shares(cgroups: Path, of: Path) -> list[float]:
    """Processors' worth of time that this process's control groups have, from its own one up."""
    try:
        [path] = [line.split(":", 2)[2] for line in of.read_text().splitlines() if line.startswith("0::")]
    except (OSError, ValueError):
        return []  # an older kernel's, or none
    shares = []
    group = (cgroups / path.lstrip("/")).resolve()
    for folder in (group, *group.parents):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            shares += [] if quota == "max" else [int(quota) / int(period)]
        except (OSError, ValueError, ZeroDivisionError):
            pass  # the root has none
        if folder == cgroups:
            break
    return shares
