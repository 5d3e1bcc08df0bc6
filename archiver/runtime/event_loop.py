"""The event loop of every command: chosen here, and nowhere else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

VARIABLE = "ARCHIVER_EVENT_LOOP"
"""`asyncio` in it keeps a command off uvloop: for tests and benchmarks, which compare both. Whatever else it holds is ignored."""


def loop_factory(environment: Mapping[str, str] | None = None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop, for asyncio.Runner: uvloop's where the extra `fast` has brought it; None is asyncio's own."""
    environment = os.environ if environment is None else environment
    if environment.get(VARIABLE) == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:  # no wheel for this machine, or not asked for: asyncio's own does the same work in more processor time
        return None
    return uvloop.new_event_loop


def loop_name() -> str:
    """Which loop runs: "uvloop" or "asyncio"."""
    return "uvloop" if type(asyncio.get_running_loop()).__module__.startswith("uvloop") else "asyncio"
