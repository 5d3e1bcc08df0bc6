"""`python -m benchmarks.queue.tuning`: which tuning of each tool is its fastest here; that one goes into its `best`."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from benchmarks.queue.client import tool_named
from benchmarks.queue.measure import Rate, enqueue, work_off
from benchmarks.queue.server import Server, running

CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "archiver": [{"concurrency": number} for number in (50, 100, 200, 500, 1000)],
    "pgqueuer": [
        *({"batch_size": number} for number in (10, 50, 100, 200, 500, 1000, 2000)),
        {"batch_size": 200, "pool": 4},
        {"batch_size": 500, "pool": 4},
        {"batch_size": 500, "uvloop": False},
    ],
    "procrastinate": [
        *({"concurrency": number, "pool": 4} for number in (1, 5, 10, 30, 100)),
        {"concurrency": 10, "pool": 10},
        {"concurrency": 30, "pool": 20},
    ],
}

BATCHES = (100, 500, 1000, 5000, 20_000)


@click.command()
@click.option("--tool", "name", type=click.Choice(list(CANDIDATES)), required=True)
@click.option("--jobs", default=20_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--processes", default=4, show_default=True)
def main(name: str, jobs: int, rounds: int, processes: int) -> None:
    """Rounds in which every candidate has its turn."""
    with tempfile.TemporaryDirectory(prefix="queue-benchmark-") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(_main(Path(folder) / "postgres", name, jobs, rounds, processes))


async def _main(folder: Path, name: str, jobs: int, rounds: int, processes: int) -> None:
    found: dict[str, list[Rate]] = defaultdict(list)
    async with running(folder) as server:
        await tool_named(name).install(await server.create("template_tool"))
        for _ in range(rounds):
            for tuning in CANDIDATES[name]:
                tool = tool_named(name, tuning)
                dsn = await _fresh(server)
                await enqueue(tool, dsn, 0, jobs)
                found[f"work off: {tuning}"].append(await work_off(server, tool, dsn, jobs, processes))
            for batch in BATCHES:
                found[f"enqueue: {batch} a batch"].append(
                    await enqueue(tool_named(name, {"batch": batch}), await _fresh(server), 0, jobs)
                )
    for what, rates in found.items():
        cost = statistics.median((rate.client_cpu + rate.server_cpu) / rate.jobs for rate in rates)
        each = ", ".join(f"{rate.per_second:,.0f}" for rate in rates)
        click.echo(f"{name}: {what}: {each} jobs/s" + (f"; {cost * 1e6:,.0f} µs of processor a job" if cost else ""))


async def _fresh(server: Server) -> str:
    return await server.create("round", "template_tool")


if __name__ == "__main__":
    main()
