"""`python -m benchmarks.reading.account`: a year of calls of a simulated platform, and the account that names each of them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from archiver.cli.simulate import bot_block
from archiver.postgres.database import Database
from archiver.postgres.embedded.server import embedded_postgres
from archiver.postgres.migrate import migrate
from archiver.simulator.platform import Simulator, SimulatorSettings

FROM, TO = "2025-01-01", "2026-01-01"

FORMS = ("table", "csv", "json")

PAGE = 100

STRETCHES = 53
"""As long as the platform answers: of seven days at most."""

console = Console(width=120)


@dataclass(frozen=True)
class Took:
    """What a command took. `processor`: its own seconds on a processor; `peak`: bytes of its memory."""

    wall: float
    processor: float
    peak: int


@click.command()
@click.option("--calls", default=200_000, show_default=True, help="Of a year, none of which is archived: each is an item.")
@click.option("--rounds", default=3, show_default=True, help="Every format once in each.")
@click.option("--source", type=click.Choice(["call_details", "sessions"]), default="call_details", show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
def main(calls: int, rounds: int, source: str, json_file: Path | None) -> None:
    """Count the requests of `discover`, and time `reconcile`; see the README beside this file."""
    figures = asyncio.run(_main(calls, rounds, source))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


async def _main(calls: int, rounds: int, source: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="account-benchmark-") as name:
        folder = Path(name)
        await asyncio.to_thread(folder.chmod, 0o755)
        async with embedded_postgres(folder / "postgres") as dsn, _platform(calls) as simulator:
            async with Database(f"{dsn}?sslmode=disable") as database:
                await migrate(database)
            config = _configure(folder, dsn, f'{bot_block(simulator)}\ndiscovery = "{source}"\n')
            discovered = await asyncio.to_thread(_timed, folder, config, "discover", "--from", FROM, "--to", TO)
            counted = simulator.report()["listings"]
            requests = counted["get_sessions"] + counted["call_details"]
            least = STRETCHES * math.ceil(calls / STRETCHES / PAGE)
            asked = f"{requests:,} requests for {calls:,} calls, {least:,} at least"
            console.print(f"discover: {asked}; {discovered.processor:.1f} s of processor")
            took: dict[str, list[Took]] = {form: [] for form in FORMS}
            for _ in range(rounds):
                for form in FORMS:
                    took[form].append(
                        await asyncio.to_thread(_timed, folder, config, "reconcile", "--from", FROM, "--to", TO, "--format", form)
                    )
    _show(took, calls)
    return {
        "calls": calls, "source": source, "requests": requests, "least": least, "discover": vars(discovered),
        "reconcile": {form: [vars(each) for each in every] for form, every in took.items()},
    }  # fmt: skip


def _configure(folder: Path, dsn: str, bot: str) -> Path:
    (folder / "store").mkdir()
    config = folder / "archiver.toml"
    config.write_text(f'[database]\nurl = "{dsn}"\n[storage]\nurl = "file://{folder}/store"\n{bot}')
    config.chmod(0o600)
    return config


@asynccontextmanager
async def _platform(calls: int) -> AsyncIterator[Simulator]:
    async with Simulator(SimulatorSettings(api_port=0, media_port=0, rate_limits=(), account_rate_limits=())) as simulator:
        made = {"from": f"{FROM}T00:00:00Z", "to": f"{TO}T00:00:00Z", "calls": calls}
        simulator.set_history({"made": made})
        yield simulator


def _timed(folder: Path, config: Path, *words: str) -> Took:
    """Run a command; 3 is what one ends with whose account is not complete."""
    began = time.monotonic()
    with (folder / "out").open("wb") as out, (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "archiver", "--config", str(config), *words],
            stdout=out, stderr=log, env={**os.environ, "NO_COLOR": "1"},
        )  # fmt: skip
        _, status, used = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    assert started.returncode in (0, 3), (folder / "log").read_text()
    return Took(time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _show(took: dict[str, list[Took]], calls: int) -> None:
    shown = Table(title=f"reconcile, {calls:,} items", title_justify="left", box=None)
    for column in ("format", "seconds", "of processor", "peak, MB"):
        shown.add_column(column)
    for form, every in took.items():
        wall, processor = (statistics.median(getattr(each, name) for each in every) for name in ("wall", "processor"))
        shown.add_row(form, f"{wall:.1f}", f"{processor:.1f}", f"{max(each.peak for each in every) / 1e6:.0f}")
    console.print(shown)


if __name__ == "__main__":
    main()
