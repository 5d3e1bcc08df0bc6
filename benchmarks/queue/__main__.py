"""`python -m benchmarks.queue`: rounds of enqueueing and working off, tool by tool in turn."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import tempfile
from collections import defaultdict
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from benchmarks.queue.client import tool_named
from benchmarks.queue.measure import Rate, enqueue, work_off
from benchmarks.queue.server import SETTINGS, Server, running
from benchmarks.queue.tool import Tool

TOOLS = ("archiver", "archiver-evidence", "pgqueuer", "procrastinate")
SLOWER = {"procrastinate": 10}
"""It gets a tenth of the jobs: rates are compared, and a round should last seconds for each."""

Measured = dict[str, dict[str, list[Rate]]]
"""What was measured -> tool -> one rate a round."""

console = Console(width=130)


def _words(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
    words = [word.strip() for word in value.split(",") if word.strip()]
    if unknown := set(words) - set(TOOLS):
        raise click.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(TOOLS)}")
    return words


def _numbers(_context: click.Context, _option: click.Parameter, value: str) -> list[int]:
    try:
        return [int(word) for word in value.split(",")]
    except ValueError:
        raise click.BadParameter("numbers with commas between them") from None


@click.command()
@click.option("--jobs", default=20_000, show_default=True, help="Jobs a round; procrastinate gets a tenth.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; in each every tool has its turn.")
@click.option("--processes", default="1,4", show_default=True, callback=_numbers, help="Numbers of client processes.")
@click.option("--tools", default=",".join(TOOLS), show_default=True, callback=_words, help="Which, and in which order.")
@click.option("--finished", default=0, show_default=True, help="Also: 10,000 against so many rows that have ended.")
@click.option(
    "--finished-tools", default="archiver", show_default=True, callback=_words, help="For which tools --finished holds."
)
@click.option("--few", default=10_000, show_default=True, help="The smaller number of ended rows.")
@click.option("--tune", default="{}", metavar="JSON", help='Other tuning, such as {"pgqueuer": {"batch_size": 50}}.')
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
@click.option("--profile", is_flag=True, help="Say which statements cost most, and keep a profile of one client a tool.")
def main(json_file: Path | None, **options: Any) -> None:
    """Measure the queues beside each other; see the README beside this file."""
    with tempfile.TemporaryDirectory(prefix="queue-benchmark-") as folder:
        Path(folder).chmod(0o755)
        figures = asyncio.run(_main(Path(folder) / "postgres", **options))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


async def _main(
    folder: Path,
    *,
    jobs: int,
    rounds: int,
    processes: list[int],
    tools: list[str],
    finished: int,
    finished_tools: list[str],
    few: int,
    tune: str,
    profile: bool,
) -> dict[str, Any]:
    tuning = json.loads(tune)
    chosen = [tool_named(name, tuning.get(name)) for name in tools]
    aged = [tool_named(name, tuning.get(name)) for name in finished_tools] if finished else []
    measured: Measured = defaultdict(lambda: defaultdict(list))
    measured_aged: Measured = defaultdict(lambda: defaultdict(list))
    async with running(folder, statements=profile) as server:
        facts = await _facts(server, [*chosen, *aged])
        console.print_json(data=facts)
        if chosen:
            await _rounds(server, chosen, jobs, rounds, processes, measured, profile)
            _report(measured)
        if aged:
            await _aged_rounds(server, aged, (few, finished), jobs, rounds, processes, measured_aged)
            _report_aged(measured_aged, few, finished)
    if profile:
        _report_statements()
    return {
        "facts": facts,
        "jobs": jobs,
        "measured": {
            what: {tool: [asdict(rate) | {"per_second": rate.per_second} for rate in rates] for tool, rates in by_tool.items()}
            for what, by_tool in (measured | measured_aged).items()
        },
    }


async def _facts(server: Server, tools: list[Tool]) -> dict[str, Any]:
    connection = await asyncpg.connect(server.dsn)
    try:
        names = (*SETTINGS, "fsync", "synchronous_commit", "full_page_writes", "wal_level", "max_connections")
        shown = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in names}
        postgres = await connection.fetchval("SHOW server_version")
    finally:
        await connection.close()
    packages = sorted({package for tool in tools for package in tool.versions})
    return {
        "python": platform.python_version(),
        "postgres": postgres,
        "processors": os.cpu_count(),
        "packages": {package: version(package) for package in packages},
        "settings": shown,
        "tuning": {tool.name: tool.tuning for tool in tools},
    }


def _database(purpose: str, tool: Tool) -> str:
    return f"{purpose}_{tool.name.replace('-', '_')}"


def _jobs(tool: Tool, jobs: int) -> int:
    return max(1, jobs // SLOWER.get(tool.name, 1))


async def _rounds(
    server: Server, tools: list[Tool], jobs: int, rounds: int, processes: list[int], measured: Measured, profile: bool
) -> None:
    for tool in tools:
        await tool.install(await server.create(_database("template", tool)))
    for number in range(rounds):
        for count in processes:
            for tool in tools:
                some = _jobs(tool, jobs)
                dsn = await server.create("round", _database("template", tool))
                put = await enqueue(tool, dsn, 0, some)
                kept = f"profile-{tool.name}.prof" if profile and number == rounds - 1 else ""
                done = await work_off(server, tool, dsn, some, count, profile=kept)
                measured["enqueue"][tool.name].append(put)
                measured[_title(count)][tool.name].append(done)
                _progress(number, f"{tool.name} x{count}", done)
                if profile:
                    await _keep_statements(server, dsn)
        if any(tool.name == "archiver" for tool in tools):
            measured["enqueue"]["archiver, plain SQL"].append(await _plain_sql(server, jobs))


async def _plain_sql(server: Server, jobs: int) -> Rate:
    from benchmarks.queue.ours import PlainSql

    return await enqueue(PlainSql(), await server.create("round", "template_archiver"), 0, jobs)


async def _aged_rounds(
    server: Server, tools: list[Tool], sizes: tuple[int, int], jobs: int, rounds: int, processes: list[int], measured: Measured
) -> None:
    """The same rounds on databases that differ in how much has ended; those with few are made anew for each round."""
    for tool in tools:
        for size in sizes:
            dsn = await server.create(f"{_database('aged', tool)}_{size}")
            await tool.install(dsn)
            await _load(tool, dsn, size)
    first = dict.fromkeys((tool.name for tool in tools), max(sizes))
    for number in range(rounds):
        for count in processes:
            for tool in tools:
                some = _jobs(tool, jobs)
                for size in sizes:
                    name = f"{_database('aged', tool)}_{size}"
                    # A copy of millions would take longer than the round; a hundredth more rows does not matter there.
                    dsn = server.named(name) if size == max(sizes) else await server.create("round", name)
                    await enqueue(tool, dsn, first[tool.name], some)
                    done = await work_off(server, tool, dsn, some, count)
                    measured[f"{_title(count)}, {size:,} ended"][tool.name].append(done)
                    _progress(number, f"{tool.name} x{count} with {size:,} ended", done)
                first[tool.name] += some


async def _load(tool: Tool, dsn: str, size: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        step = 500_000
        for start in range(0, size, step):
            await tool.load_finished(connection, start, min(step, size - start))
        await connection.execute("VACUUM (FREEZE, ANALYZE)", timeout=3600)
        for table in tool.tables:
            rows = await connection.fetchval(f"SELECT count(*) FROM {table}", timeout=600)
            held = await connection.fetchval("SELECT pg_total_relation_size($1::text::regclass)", table)
            console.print(f"{tool.name}: loaded {table}: {rows:,} rows, {held / 1e6:,.0f} MB with indexes")
    finally:
        await connection.close()


def _title(processes: int) -> str:
    return f"claim and settle, {processes} process{'es' if processes > 1 else ''}"


def _progress(number: int, what: str, rate: Rate) -> None:
    console.print(
        f"round {number + 1}: {what}: {rate.per_second:,.0f} jobs/s ({rate.seconds:.1f} s; a job costs"
        f" {rate.client_cpu / rate.jobs * 1e6:,.0f} µs of the clients, {rate.server_cpu / rate.jobs * 1e6:,.0f} µs of the server)"
    )


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}}..{max(values):{form}})"


def _report(measured: Measured) -> None:
    table = Table("", "queue", "jobs/s: median (min..max)", "µs a job: clients + server", "archiver / it: median (min..max)")
    for what, by_tool in measured.items():
        ours = by_tool.get("archiver", [])
        for name, rates in by_tool.items():
            cost = [
                f"{statistics.median(cpu) * 1e6:,.0f}"
                for cpu in ([r.client_cpu / r.jobs for r in rates], [r.server_cpu / r.jobs for r in rates])
            ]
            ratio = [a.per_second / b.per_second for a, b in zip(ours, rates, strict=False)]
            table.add_row(
                what,
                name,
                _spread([rate.per_second for rate in rates], ",.0f"),
                " + ".join(cost) if rates[0].client_cpu else "",
                _spread(ratio, ".2f") if ratio and not name.startswith("archiver") else "",
            )
        table.add_section()
    console.print(table)


def _report_aged(measured: Measured, few: int, many: int) -> None:
    table = Table("", "queue", f"{few:,} ended: jobs/s", f"{many:,} ended: jobs/s", "many / few: median (min..max)")
    for what in [what for what in measured if what.endswith(f", {few:,} ended")]:
        title = what.removesuffix(f", {few:,} ended")
        for name, small in measured[what].items():
            large = measured[f"{title}, {many:,} ended"][name]
            ratio = [b.per_second / a.per_second for a, b in zip(small, large, strict=True)]
            rates = [_spread([rate.per_second for rate in side], ",.0f") for side in (small, large)]
            table.add_row(title, name, *rates, _spread(ratio, ".2f"))
    console.print(table)


_statements: dict[str, list[float]] = {}


async def _keep_statements(server: Server, dsn: str) -> None:
    """Add up what the round's statements took, before its database goes."""
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        rows = await connection.fetch(
            """SELECT toplevel, query, calls, total_exec_time AS ms, wal_bytes FROM pg_stat_statements s
               JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = 'round' AND query NOT LIKE 'VACUUM%'"""
        )
        for row in rows:
            kept = _statements.setdefault(
                f"{'' if row['toplevel'] else '  in it: '}{' '.join(row['query'].split())[:150]}", [0, 0, 0]
            )
            for place, value in enumerate((row["calls"], row["ms"], row["wal_bytes"])):
                kept[place] += float(value)
        await connection.execute("SELECT pg_stat_statements_reset()")
    finally:
        await connection.close()


def _report_statements() -> None:
    for query, (calls, ms, wal) in sorted(_statements.items(), key=lambda item: -item[1][1])[:30]:
        click.echo(f"{ms:10,.0f} ms {calls:9,.0f} calls {wal / 1e6:8,.1f} MB WAL  {query}")


if __name__ == "__main__":
    main()
