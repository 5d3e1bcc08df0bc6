"""`python -m benchmarks.upgrade`: migrates a large database to the next release while workers of both drain it, and producers
insert. Prints the longest waits; ends with 1 if a session was lost, failed or done twice, or somebody waited for too long.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import click

from archiver.simulator.platform import Simulator, SimulatorSettings
from benchmarks.fleet.fleet import configured
from benchmarks.queue.server import running
from benchmarks.upgrade.releases import Installed, two_releases
from benchmarks.upgrade.waits import Waits

BOT = "bot"

WORKERS, PRODUCERS = 2, 4
"""Workers of each release; producers, each of which inserts every PAUSE seconds."""

PAUSE = 0.05

MAX_WAIT = 1.0
"""Seconds that nobody may wait for a lock."""

FILL = f"""
    INSERT INTO archive_queue (bot, session_id, state, archive_date, enqueued_at, run_at, claimed_at, first_asked_at, finished_at,
                               epoch, calls, files)
    SELECT '{BOT}', 'old-' || n, 'archived', at, at, at, at + interval '1 s', at + interval '1 s', at + interval '3 s', 1, 1, 1
    FROM (SELECT n, now() - interval '300 days' + n * interval '10 s' AS at FROM generate_series(1, $1::integer) n) numbers"""

FILL_RECORDINGS = """
    INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type, archived_at,
                                     source_name, queue_id)
    SELECT bot, session_id, kind, 1, 'recording.wav', 'bot=bot/' || session_id || '/recording.wav', 960044,
           encode(sha256(session_id::bytea), 'hex'), 'audio/wav', finished_at, 'recording.wav', id
    FROM archive_queue WHERE state = 'archived'"""


@dataclass(frozen=True)
class Figures:
    """What it came to; waits in seconds."""

    rows: int
    sessions: int
    archived_once: int
    not_archived: int
    migrated_in: float
    lock_retries: int
    producers_lock: float
    producers_statement: float
    producers_statement_before: float
    workers_lock: float
    workers_statement: float
    workers_statement_before: float


@click.command()
@click.option("--rows", default=2_000_000, show_default=True, help="Archived sessions that are there before.")
@click.option("--sessions", default=2_000, show_default=True, help="To be archived, half of them inserted on the way.")
@click.option("--open-transaction", default=2.0, show_default=True, help="Seconds that somebody keeps migrate waiting.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def main(rows: int, sessions: int, open_transaction: float, as_json: bool) -> None:
    """Migrate while workers of two releases work and producers insert, and print who waited for how long."""
    figures = asyncio.run(_main(rows, sessions, open_transaction))
    if as_json:
        click.echo(json.dumps(asdict(figures), indent=2))
    else:
        _show(figures)
    longest = max(figures.producers_lock, figures.workers_lock)
    if figures.not_archived or figures.archived_once != figures.sessions or longest >= MAX_WAIT:
        sys.exit(1)


async def _main(rows: int, sessions: int, open_transaction: float) -> Figures:
    with tempfile.TemporaryDirectory(prefix="archiver-upgrade-") as name:
        folder = Path(name)
        _say("building and installing two releases")
        this, later = await two_releases(folder / "releases")
        async with running(folder / "postgres") as server, _platform(sessions) as (simulator, ids):
            url = await server.create("upgrade", "template1")
            config = _configure(folder, url, simulator)
            await _ended(await _start(this, folder, "migrate-before", config, "migrate"), folder, "migrate-before")
            _say(f"filling the queue with {rows:,} archived sessions")
            await _fill(url, rows)
            return await _measure(folder, url, config, this, later, ids, rows, open_transaction)


async def _measure(
    folder: Path, url: str, config: Path, this: Installed, later: Installed, ids: list[str], rows: int, open_transaction: float
) -> Figures:
    sql = await asyncpg.connect(url, server_settings={"application_name": "a forgotten psql"})
    before, during = Waits(), Waits()
    workers: dict[str, asyncio.subprocess.Process] = {}
    try:
        half = len(ids) // 2
        await before.produce(url, ids[:half], bot=BOT, pause=0, rows=100)
        for release in (this, later):
            for number in range(WORKERS):
                name = f"worker-{release.version}-{number}"
                workers[name] = await _start(release, folder, name, config, "worker")
        await _until(sql, "SELECT count(*) >= $1 FROM archive_queue WHERE epoch > 0 AND session_id ~ '^new'", half // 10, workers)
        calm = half // 3
        async with before.watched(url):
            _say("working without a migration, to compare with")
            await _produce(before, url, ids[half : half + calm])
        async with during.watched(url):
            _say("migrating")
            producers = asyncio.create_task(_produce(during, url, ids[half + calm :]))
            transaction = sql.transaction()
            await transaction.start()
            await sql.execute("SELECT FROM archive_queue LIMIT 1")
            began = time.monotonic()
            migrating = await _start(later, folder, "migrate", config, "migrate")
            await asyncio.sleep(open_transaction)
            await transaction.rollback()
            await _ended(migrating, folder, "migrate")
            migrated_in = time.monotonic() - began
            _say(f"migrated in {migrated_in:.0f} s; draining")
            await producers
            await _until(sql, "SELECT count(*) = $1 FROM archive_queue WHERE finished_at IS NULL", 0, workers)
        for process in workers.values():
            process.terminate()
        for name, process in workers.items():
            await _ended(process, folder, name, 143)
        return await _figures(sql, folder, rows, len(ids), migrated_in, before, during)
    finally:
        for process in workers.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        await sql.close()


async def _figures(
    sql: asyncpg.Connection[Any], folder: Path, rows: int, sessions: int, migrated_in: float, before: Waits, during: Waits
) -> Figures:
    archived_once = await sql.fetchval(
        """SELECT count(*) FROM archive_queue q WHERE session_id LIKE 'new-%' AND state = 'archived' AND failures = 0
           AND (SELECT count(*) FROM archived_recordings WHERE queue_id = q.id) = 1
           AND (SELECT count(*) FROM archive_history WHERE queue_id = q.id AND event = 'archived') = 1"""
    )
    return Figures(
        rows=rows,
        sessions=sessions,
        archived_once=archived_once,
        not_archived=await sql.fetchval("SELECT count(*) FROM archive_queue WHERE state <> 'archived'"),
        migrated_in=round(migrated_in, 1),
        lock_retries=(folder / "migrate.log").read_text().count("migration_lock_awaited"),
        producers_lock=round(during.producers_lock, 3),
        producers_statement=round(during.producers_statement, 3),
        producers_statement_before=round(before.producers_statement, 3),
        workers_lock=round(during.workers_lock, 3),
        workers_statement=round(during.workers_statement, 3),
        workers_statement_before=round(before.workers_statement, 3),
    )


def _show(figures: Figures) -> None:
    click.echo(f"{figures.rows:,} rows, {figures.sessions:,} sessions: {figures.archived_once:,} archived once each, "
               f"{figures.not_archived:,} not; migrated in {figures.migrated_in} s, "
               f"{figures.lock_retries} retries for a lock")  # fmt: skip
    click.echo(f"{'longest, in seconds':<24}{'wait for a lock':>18}{'statement':>12}{'without a migration':>22}")
    for who in ("producers", "workers"):
        lock, statement, usual = (getattr(figures, f"{who}_{what}") for what in ("lock", "statement", "statement_before"))
        click.echo(f"{who:<24}{lock:>18.3f}{statement:>12.3f}{usual:>22.3f}")


def _say(text: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


@asynccontextmanager
async def _platform(sessions: int) -> AsyncIterator[tuple[Simulator, list[str]]]:
    async with Simulator(SimulatorSettings(rate_limits=(), account_rate_limits=())) as simulator:
        ids = [f"new-{number:06}" for number in range(sessions)]
        for number, one in enumerate(ids):
            fault = {"kind": "slow", "bytes_per_second": 4000, "times": None}
            recording = {"file_name": "a.wav", "audio": {"bytes": 2000, "seed": number}, "faults": [fault]}
            simulator.script({"session_id": one, "recordings": [recording]})
        yield simulator, ids


def _configure(folder: Path, url: str, simulator: Simulator) -> Path:
    bot = {
        "name": BOT,
        "host": simulator.api_url,
        "bot_id": simulator.bot_id,
        "client_id": simulator.client_id,
        "client_secret": simulator.client_secret,
        "rate_limits": ["60000/minute"],
        "media_hosts": ["127.0.0.1"],
    }
    (folder / "store").mkdir()  # migrate marks it as this archive's
    sections: dict[str, Any] = {
        "database": {"url": url},
        "[bots]": [bot],
        "storage": {"url": (folder / "store").as_uri()},
        "worker": {"concurrency": 4},
    }
    return configured(folder, sections)


async def _fill(url: str, rows: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("SET session_replication_role = replica; SET timezone = 'UTC'")
    await connection.execute(FILL, rows, timeout=3600)
    await connection.execute(FILL_RECORDINGS, timeout=3600)
    await connection.execute("ANALYZE archive_queue, archived_recordings; CHECKPOINT", timeout=3600)
    await connection.close()


async def _produce(waits: Waits, url: str, ids: list[str]) -> None:
    parts = [ids[part::PRODUCERS] for part in range(PRODUCERS)]
    await asyncio.gather(*(waits.produce(url, part, bot=BOT, pause=PAUSE) for part in parts))


async def _until(sql: asyncpg.Connection[Any], query: str, count: int, workers: dict[str, asyncio.subprocess.Process]) -> None:
    async with asyncio.timeout(1800):
        while not await sql.fetchval(query, count):
            if ended := [name for name, process in workers.items() if process.returncode is not None]:
                raise RuntimeError(f"{', '.join(ended)} ended; see the log")
            await asyncio.sleep(0.5)


async def _start(release: Installed, folder: Path, name: str, config: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8"}
    with (folder / f"{name}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(
            *release.command, "--config", str(config), *arguments,
            cwd=folder, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip


async def _ended(process: asyncio.subprocess.Process, folder: Path, name: str, code: int = 0) -> None:
    if await process.wait() != code:
        raise RuntimeError(f"{name} ended with {process.returncode}:\n{(folder / f'{name}.log').read_text()[-3000:]}")


if __name__ == "__main__":
    main()
