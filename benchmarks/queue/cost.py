"""`python -m benchmarks.queue.cost`: what one session costs the server, step by step, and the bytes that stay of it.

Sessions go the queue's own way, by `Queue.enqueue`, `Queue.claim` and `Queue.settle`, each with what a worker notes of one
recording. No store, no platform: only what the database does is measured, in processor time of its backend, in bytes
of WAL, in rows, and in the bytes that stay in tables and indexes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from archiver.config import BotSettings, RetrySettings
from archiver.outcome import Archived
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.queue.counts import Counts
from archiver.queue.quota import Quota
from archiver.queue.sessions import NewSession, Queue
from archiver.session import Attempt, Session, StoredFile
from benchmarks.queue.ours import BEGIN_LEDGER
from benchmarks.queue.server import Server, running
from benchmarks.queue.tool import session_ids

BOT = "support-us"
BATCH = 5000
"""Sessions that one `Queue.enqueue` inserts."""
SLOTS = 200
"""Sessions that one claim takes, and one settle writes."""

TABLES = ("archive_queue", "archived_recordings", "archive_events", "archive_ledger_outbox")
"""Where a session's bytes are. What waits to be sealed goes again."""

console = Console(width=120)

ANSWER = (
    '{"status":"success","recordings":[{"fileName":"recording.wav",'
    '"url":"https://media.kore.ai/recordings/{id}.wav?[redacted]"}]}'
)
"""As the platform says it, and as `redact` leaves it."""


@click.command()
@click.option("--sessions", default=40_000, show_default=True)
@click.option("--evidence", type=click.Choice(["off", "on", "both"]), default="both", show_default=True, help="With a ledger.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write every figure to this file.")
def main(sessions: int, evidence: str, json_file: Path | None) -> None:
    """Measure what a session costs; see the README beside this file."""
    sides = {"off": [False], "on": [True], "both": [False, True]}[evidence]
    with tempfile.TemporaryDirectory(prefix="queue-cost-") as folder:
        Path(folder).chmod(0o755)
        figures = asyncio.run(_main(Path(folder) / "postgres", sessions, sides))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1) + "\n")


async def _main(folder: Path, sessions: int, sides: list[bool]) -> dict[str, Any]:
    figures = {}
    async with running(folder) as server:
        for sealed in sides:
            dsn = await server.create("cost")
            figures[f"evidence {'on' if sealed else 'off'}"] = await _measure(server, dsn, sessions, sealed=sealed)
    return figures


async def _measure(server: Server, dsn: str, sessions: int, *, sealed: bool) -> dict[str, Any]:
    async with Database(dsn, pool_size=1) as database:
        await migrate(database)
        queue = Queue(database, RetrySettings())
        worker_id = await queue.start_worker(host="here", pid=1, version="0", lease=timedelta(hours=1), bots=[BOT])
        probe = await asyncpg.connect(dsn)
        try:
            if sealed:
                await probe.execute(BEGIN_LEDGER)
            async with database.connection() as connection:
                backend = await connection.fetchval("SELECT pg_backend_pid()")
            steps = Steps(backend, probe, sessions)
            ids = session_ids(0, sessions)
            async with steps.step("enqueue"):
                for start in range(0, sessions, BATCH):
                    await queue.enqueue([NewSession(BOT, one) for one in ids[start : start + BATCH]], actor="benchmark")
            await probe.execute("VACUUM ANALYZE")
            quota = _quota(database)
            left = sessions
            while left:
                async with steps.step("claim"):
                    claimed = (await queue.claim(worker_id, {BOT: quota}, SLOTS)).sessions
                async with steps.step("settle"):
                    await queue.settle([(_attempt(session), Archived()) for session in claimed])
                left -= len(claimed)
            await Counts(database).fold()
            await asyncio.sleep(1.1)  # backends tell what they wrote once a second
            rows = await _rows(probe, sessions)
            held = await _held(probe, sessions)
        finally:
            await probe.close()
    figures = {"steps": steps.figures(), "bytes": held, "rows": rows}
    _report(figures, "on" if sealed else "off")
    return figures


def _quota(database: Database) -> Quota:
    data = {
        "name": BOT,
        "bot_id": "st-bench",
        "client_id": "cs-1",
        "client_secret": "secret-1",
        "rate_limits": ["999999999/second"],
    }
    settings = BotSettings.model_validate(data)
    return Quota(database, settings.budget_key, settings.rate_limits or (), backoff_base=timedelta(seconds=2))


def _attempt(session: Session) -> Attempt:
    """One recording, with the notes that a worker makes of it."""
    attempt = Attempt(session, calls=1, listed=1)
    attempt.note("asked", http_status=200, status="success", answer=ANSWER.replace("{id}", session.session_id))
    day = session.archive_date.date()
    name = "recording.wav"
    key = f"bot={BOT}/date={day}/{session.session_id}/recording/{name}"
    sha256 = hashlib.sha256(session.session_id.encode()).hexdigest()
    stored = StoredFile(1, name, name, key, 960044, sha256, "audio/wav", (), 60.0, 8000, 1)
    attempt.stored.append(stored)
    attempt.note("stored", existed=False, **stored.as_row())
    return attempt


class Steps:
    """Adds up what steps cost: processor time of the backend, WAL."""

    def __init__(self, backend: int, probe: asyncpg.Connection[Any], sessions: int) -> None:
        self._backend, self._probe, self._sessions = backend, probe, sessions
        self._costs: dict[str, list[float]] = {}

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """One more time of this step."""
        before = await self._now()
        yield
        after = await self._now()
        kept = self._costs.setdefault(name, [0.0, 0.0, 0])
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            kept[place] += new - old

    async def _now(self) -> tuple[float, int, int]:
        wal = await self._probe.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return _nanoseconds(self._backend) / 1000, int(wal), 0

    def figures(self) -> dict[str, dict[str, float]]:
        """What each step took for a session."""
        return {
            name: {"server_us": us / self._sessions, "wal_bytes": wal / self._sessions}
            for name, (us, wal, _) in self._costs.items()
        }


def _nanoseconds(process: int) -> int:
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0])


async def _held(probe: asyncpg.Connection[Any], sessions: int) -> dict[str, float]:
    """Bytes a session of each table and index, made anew: without what comes and goes."""
    await probe.execute("VACUUM (FULL, ANALYZE) archive_queue, archived_recordings, archive_events", timeout=3600)
    rows = await probe.fetch(
        """SELECT c.relname, pg_table_size(c.oid) AS bytes FROM pg_class c WHERE c.relname = ANY ($1)
           UNION ALL
           SELECT i.indexrelid::regclass::text, pg_relation_size(i.indexrelid) FROM pg_index i
           WHERE i.indrelid::regclass::text = ANY ($1)""",
        TABLES[:3],
    )
    return {row["relname"]: row["bytes"] / sessions for row in rows}


async def _rows(probe: asyncpg.Connection[Any], sessions: int) -> dict[str, dict[str, float]]:
    await probe.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
    rows = await probe.fetch(
        """SELECT relname, n_tup_ins AS inserted, n_tup_upd AS updated, n_tup_hot_upd AS hot FROM pg_stat_user_tables
           WHERE n_tup_ins + n_tup_upd >= $1 / 4 ORDER BY 1""",
        sessions,
    )
    return {row["relname"]: {what: row[what] / sessions for what in ("inserted", "updated", "hot")} for row in rows}


def _report(figures: dict[str, Any], evidence: str) -> None:
    shown = Table(
        "step", "µs of the backend", "bytes of WAL", title=f"a session, evidence {evidence}", title_justify="left", box=None
    )
    for name, cost in figures["steps"].items():
        shown.add_row(name, f"{cost['server_us']:.1f}", f"{cost['wal_bytes']:.0f}")
    console.print(shown)
    held = Table("what stays of it", "bytes", box=None)
    for name, size in sorted(figures["bytes"].items(), key=lambda item: -item[1]):
        if size >= 1:
            held.add_row(name, f"{size:.0f}")
    held.add_row("all", f"{sum(figures['bytes'].values()):.0f}")
    console.print(held)
    written = Table("rows written", "inserted", "updated", "of these HOT", box=None)
    for name, rows in figures["rows"].items():
        written.add_row(name, *(f"{rows[what]:.2f}" for what in ("inserted", "updated", "hot")))
    console.print(written)


if __name__ == "__main__":
    main()
