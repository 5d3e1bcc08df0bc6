"""`python -m benchmarks.reading`: fills a database with sessions, and times the commands that people wait for."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from archiver.config import RetrySettings
from archiver.postgres.database import Database
from archiver.postgres.embedded.server import embedded_postgres
from archiver.postgres.migrate import migrate
from archiver.queue.counts import Counts
from archiver.queue.sessions import Queue
from archiver.queue.sql import sql
from benchmarks.queue.server import Server

SETTINGS = {"shared_buffers": "2GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "maintenance_work_mem": "1GB"}

ASKED: dict[str, Sequence[str]] = {
    "status": ("status", "--json"),
    "list": ("list",),
    "list --state failed": ("list", "--state", "failed"),
    "list --state failed --reason": ("list", "--state", "failed", "--reason", "conflict"),
    "list --open": ("list", "--open"),
    "list --bot --from --to": ("list", "--bot", "bot-1", "--from", "2025-03-04", "--to", "2025-03-05"),
    "find --caller": ("find", "--caller", "+49 30 0001234"),
    "find --caller, the busiest": ("find", "--caller", "+49 30 5550000"),
    "find --agent": ("find", "--agent", "agent 17"),
    "show": ("show", "s-123457"),
    "nights": ("nights",),
}
"""What a person asks, and how."""

BY_COUNTING = """
    SELECT bot, state, count(*), sum(calls) FROM archive_queue GROUP BY 1, 2;
    SELECT count(*), sum(bytes) FROM archived_recordings;
    SELECT state, reason, count(*) FROM archive_queue WHERE state IN ('unavailable', 'failed', 'cancelled') GROUP BY 1, 2"""
"""What `status` would ask if nothing was counted beforehand."""

FILL = """
INSERT INTO archive_queue (bot, session_id, kind, state, reason, detail, archive_date, started_at, ended_at, enqueued_at, run_at,
                           claimed_at, first_asked_at, last_asked_at, finished_at, epoch, calls, files, listed_at, call)
SELECT 'bot-' || n % 3, 's-' || n, 'recording', state,
       CASE WHEN n % 10000 = 0 THEN 'conflict' WHEN n % 1000 = 0 THEN 'not_a_recording' WHEN n % 10 = 1 THEN 'media_unavailable'
            WHEN n % 5000 = 2 THEN 'a wrong list' END,
       '{}', at, at, at + interval '3 minutes', at, at, at, at, at, CASE WHEN state <> 'pending' THEN at + interval '1 hour' END,
       1, 1, 1, at,
       jsonb_build_object('direction', 'inbound', 'conversation_id', md5(n::text), 'queue', '["support"]'::jsonb,
           'caller', CASE WHEN n % 20 = 3 THEN '+49305550000' ELSE '+4930' || lpad((n % 700000)::text, 7, '0') END,
           'callee', '+4989123456', 'language', 'en',
           'agent', jsonb_build_array(
               jsonb_build_object('name', 'Agent ' || n % 200, 'email', 'agent' || n % 200 || '@example.com')))
FROM generate_series($1::bigint, $2) n,
     LATERAL (SELECT timestamptz '2023-06-01Z' + interval '1000 days' * (n / $4::float8) AS at,
                     CASE WHEN n % 1000 = 0 THEN 'failed' WHEN n % 10 = 1 THEN 'unavailable' WHEN n % 5000 = 2 THEN 'cancelled'
                          WHEN n > $3 THEN 'pending' ELSE 'archived' END AS state) t
"""

FILES = """
INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type, archived_at,
                                 source_name, queue_id, seconds)
SELECT bot, session_id, kind, 1, 'call.wav',
       'bot=' || bot || '/date=' || archive_date::date || '/' || session_id || '/recording/call.wav', 1000000 + id % 1000,
       encode(sha256(id::text::bytea), 'hex'), 'audio/wav', finished_at, 'call.wav', id, 180
FROM archive_queue WHERE state = 'archived' AND id BETWEEN $1 AND $2
"""

STEP = 250_000

console = Console(width=120)


@click.command()
@click.option("--sessions", default=5_000_000, show_default=True)
@click.option("--rounds", default=7, show_default=True, help="Every command once in each.")
@click.option("--change", default=100_000, show_default=True, help="Sessions that are enqueued and cancelled; 0: none.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the database here, and use it if it is there.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
def main(sessions: int, rounds: int, change: int, folder: Path | None, json_file: Path | None) -> None:
    """Time what people ask of a large archive; see the README beside this file."""
    with tempfile.TemporaryDirectory(prefix="reading-benchmark-") as temporary:
        Path(temporary).chmod(0o755)
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        figures = asyncio.run(_main(place, sessions, rounds, change))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


async def _main(folder: Path, sessions: int, rounds: int, change: int) -> dict[str, Any]:
    async with embedded_postgres(folder / "postgres") as dsn:
        administrator = await asyncpg.connect(dsn)
        for name, value in SETTINGS.items():
            await administrator.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        await administrator.close()
    async with embedded_postgres(folder / "postgres") as dsn, Database(f"{dsn}?sslmode=disable") as database:
        await migrate(database)
        filled: dict[str, float] = {}
        async with database.connection() as connection:
            present = await connection.fetchval("SELECT count(*) FROM archive_queue", timeout=600)
        if not present:
            filled = await _fill(database, sessions)
        config = folder / "archiver.toml"
        config.write_text(f'[database]\nurl = "{dsn}"\n[storage]\nurl = "file://{folder}/store"\n')
        times: dict[str, list[float]] = {name: [] for name in (*ASKED, "by counting", "--version")}
        for _ in range(rounds):
            for name, words in ASKED.items():
                times[name].append(_timed(config, words))
            times["--version"].append(_timed(config, ("--version",)))
            began = time.monotonic()
            async with database.connection() as connection:
                for query in BY_COUNTING.split(";"):
                    await connection.fetch(query, timeout=600)
            times["by counting"].append(time.monotonic() - began)
        await _check(database, _document(config))
        changed: dict[str, list[float]] = {}
        if change:
            for number in range(rounds):
                await _change(database, dsn, folder, config, number, change, changed)
            await _check(database, _document(config))
    _show(times, filled, sessions)
    if changed:
        _show(changed, {}, sessions)
    return {"sessions": sessions, "seconds": times, "changed": changed, "filled": filled}


async def _change(
    database: Database, dsn: str, folder: Path, config: Path, number: int, change: int, times: dict[str, list[float]]
) -> None:
    """Enqueue so many sessions and cancel them again, and see how long a drain takes to see that it is done: whole commands, and
    of each the processor time that the server took.
    """
    ids = folder / "ids.txt"
    mark = f"{time.time_ns():x}"
    ids.write_text("".join(f"{mark}-{number}-{n:07}\n" for n in range(change)))
    server = Server(dsn, int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]))
    drain = sql("report/backlog")
    since = await Queue(database, RetrySettings()).clock()
    for name, words in (
        (f"enqueue of {change:,}", ("enqueue", "--bot", "bot-1", "--file", str(ids))),
        (f"cancel --all of {change:,}", ("cancel", "--all", "--since", since.isoformat(), "--reason", "measured")),
    ):
        before = server.cpu_seconds()
        times.setdefault(name, []).append(_timed(config, words))
        times.setdefault(f"{name}: the server's processor", []).append(server.cpu_seconds() - before)
        async with database.connection() as connection:
            arguments = drain.arguments({"bots": ["bot-0", "bot-1", "bot-2"], "since": since, "night": False})
            began = time.monotonic()
            await connection.fetch(drain.text, *arguments)
            times.setdefault(f"what a drain waits for, after {words[0]}", []).append(time.monotonic() - began)


async def _fill(database: Database, sessions: int) -> dict[str, float]:
    """As if they had come over a thousand days; the last two thousand still wait. Seconds that steps took."""
    took: dict[str, float] = {}
    began = time.monotonic()
    async with database.connection() as connection:
        indexes = await connection.fetch(
            """SELECT indexdef, indexname FROM pg_indexes i WHERE tablename IN ('archive_queue', 'archived_recordings')
               AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conname = i.indexname)"""
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        await connection.execute("SET session_replication_role = replica")
        for first in range(1, sessions + 1, STEP):
            last = min(first + STEP - 1, sessions)
            await connection.execute(FILL, first, last, sessions - 2000, float(sessions), timeout=3600)
        await connection.execute(
            "SELECT setval(pg_get_serial_sequence('archive_queue', 'id'), (SELECT max(id) FROM archive_queue))"
        )
        for first in range(1, sessions + 1, STEP):
            await connection.execute(FILES, first, first + STEP - 1, timeout=3600)
        await connection.execute("RESET session_replication_role")
        took["rows"] = time.monotonic() - began
        for index in indexes:
            began = time.monotonic()
            await connection.execute(index["indexdef"], timeout=3600)
            took[index["indexname"]] = time.monotonic() - began
        began = time.monotonic()
        for table in ("archive_queue", "archived_recordings"):
            await connection.execute(f"VACUUM ANALYZE {table}", timeout=3600)
        took["vacuum"] = time.monotonic() - began
    counts = Counts(database)
    began = time.monotonic()
    await counts.recount(mend=True)
    took["recount"] = time.monotonic() - began
    await counts.fold()
    async with database.connection() as connection:
        await connection.execute("ANALYZE")
    return took


def _timed(config: Path, words: Sequence[str]) -> float:
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "archiver", "--config", str(config), *words],
        check=False, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return time.monotonic() - began


def _document(config: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "archiver", "--config", str(config), "status", "--json"]
    document: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return document


async def _check(database: Database, shown: dict[str, Any]) -> None:
    """`status` and the count say the same."""
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT state, count(*) FROM archive_queue GROUP BY state", timeout=600)
        files = await connection.fetchval("SELECT count(*) FROM archived_recordings", timeout=600)
    assert {row["state"]: row["count"] for row in rows} == {state: count for state, count in shown["sessions"].items() if count}
    assert shown["recordings"] == files


def _show(times: dict[str, list[float]], filled: dict[str, float], sessions: int) -> None:
    shown = Table(title=f"{sessions:,} sessions: seconds, the whole command", title_justify="left", box=None)
    for column in ("asked", "median", "least", "most"):
        shown.add_column(column)
    for name, seconds in times.items():
        shown.add_row(name, *(f"{value:.3f}" for value in (statistics.median(seconds), min(seconds), max(seconds))))
    console.print(shown)
    for name, value in filled.items():
        console.print(f"{name}: {value:.0f} s")


if __name__ == "__main__":
    main()
