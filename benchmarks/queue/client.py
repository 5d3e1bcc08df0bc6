"""One client process: `python -m benchmarks.queue.client TOOL`, told the rest on standard input."""

from __future__ import annotations

import cProfile
import json
import resource
import sys

from benchmarks.queue.tool import Tool, told_to_begin


def tool_named(name: str, tuning: dict[str, object] | None = None) -> Tool:
    """The tool of that name; only its own packages are imported."""
    match name:
        case "archiver":
            from benchmarks.queue.ours import Archiver

            return Archiver(**(tuning or {}))
        case "archiver-evidence":
            from benchmarks.queue.ours import Sealed

            return Sealed(**(tuning or {}))
        case "pgqueuer":
            from benchmarks.queue.pgqueuer_tool import Pgqueuer

            return Pgqueuer(**(tuning or {}))
        case "procrastinate":
            from benchmarks.queue.procrastinate_tool import Procrastinate

            return Procrastinate(**(tuning or {}))
        case _:
            raise ValueError(f"unknown tool {name!r}")


def main() -> None:
    """Get ready, wait, work, tell."""
    told = json.loads(sys.stdin.readline())
    tool = tool_named(sys.argv[1], told["tuning"])
    before = 0.0

    async def release() -> None:
        nonlocal before
        await told_to_begin()
        before = _cpu_seconds()

    profile = cProfile.Profile() if told["profile"] else None
    if profile:
        profile.enable()
    jobs = tool.run(tool.work(told["dsn"], release))
    if profile:
        profile.disable()
        profile.dump_stats(told["profile"])
    print(json.dumps({"jobs": jobs, "cpu_seconds": _cpu_seconds() - before}), flush=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
