"""`python -m benchmarks.evidence`: what sealing costs a session, and what many entries cost to seal and to audit."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import click
from rich.console import Console
from rich.table import Table

from archiver.config import EvidenceSettings
from archiver.config.path_template import PathTemplate
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.whole import audit
from archiver.evidence.keys import SealingKey
from archiver.evidence.rebuild.whole import Terms as RebuildTerms
from archiver.evidence.rebuild.whole import rebuild
from archiver.evidence.sealer import Sealer, Terms
from archiver.observe.logs import configure
from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.queue.ledger import Ledger
from archiver.runtime.buffers import Buffers
from archiver.simulator.platform import Simulator, SimulatorSettings
from archiver.stores.local.store import LocalStore
from benchmarks.queue.server import Server, running
from benchmarks.transfer.process import Client, adopt_orphans

ORIGIN = "archive.example.com/bench"
SIZES = {"64KB": (64_000, 800), "1MB": (1_000_000, 200), "8MB": (8_000_000, 60)}
"""Bytes of a recording, and sessions of a run. What a run of one session costs is taken off: it is there whatever is done."""

PATH = PathTemplate("bot={bot}/date={date:%Y-%m-%d}/{session_id}/{kind}/{file_name}")


@dataclass(frozen=True)
class Cost:
    """Processor time in milliseconds, of a run or of a session."""

    worker: float
    server: float

    @property
    def all(self) -> float:
        """Of both."""
        return self.worker + self.server


class NotTheSameWork(Exception):
    """A run did not do what it was to do."""


# --- a session, with and without


@asynccontextmanager
async def places(folder: Path, kind: str) -> AsyncIterator[Any]:
    """Makes a store for each run: given its number, the keys of [storage] and below."""
    if kind == "folder":
        yield lambda number: ({"url": (folder / f"store-{number}").as_uri()}, {})
        return
    from tests.s3_servers import BUCKET, seaweedfs

    with seaweedfs(folder / "weed") as server:
        yield lambda number: ({"url": f"s3://{BUCKET}/run-{number}"}, server.keys)


async def measure(folder: Path, server: Server, kind: str, label: str, rounds: int) -> dict[bool, list[Cost]]:
    """Rounds of the whole job, without the evidence and with it, in turns."""
    size, sessions = SIZES[label]
    costs: dict[bool, list[Cost]] = {False: [], True: []}
    numbers = itertools.count()
    async with (
        places(folder, kind) as place,
        Simulator(SimulatorSettings(rate_limits=(), account_rate_limits=(), control=False)) as simulator,
    ):
        ids = [f"65e7133a3242653c58d7{number:04x}" for number in range(sessions)]
        simulator.script_all([{"session_id": each, "recordings": [{"audio": {"bytes": size}}]} for each in ids])
        for turn in range(rounds):
            for sealed in (True, False) if turn % 2 else (False, True):
                used = []
                for some in (ids[:1], ids):
                    storage, keys = place(f"{label}-{next(numbers)}")
                    dsn = await server.create("round", "template_archiver")
                    config = _configuration(folder, simulator, dsn, storage, keys, sealed=sealed)
                    used.append(await _run(folder, server, config, some, sealed=sealed))
                one, all_of_them = used
                costs[sealed].append(
                    Cost(
                        (all_of_them.worker - one.worker) / (sessions - 1),
                        (all_of_them.server - one.server) / (sessions - 1),
                    )
                )
    return costs


def _configuration(
    folder: Path, simulator: Simulator, dsn: str, storage: dict[str, Any], keys: dict[str, Any], *, sealed: bool
) -> Path:
    tables = {
        "database": {"url": dsn},
        "storage": storage,
        "storage.s3": keys,
        "log": {"level": "error"},
        "evidence": {"key_file": str(folder / "evidence.key") if sealed else "", "origin": ORIGIN},
    }
    bot = {
        "name": "bot", "host": simulator.api_url, "bot_id": simulator.bot_id, "client_id": simulator.client_id,
        "client_secret": simulator.client_secret, "rate_limits": ["999999999/second"], "media_hosts": ["127.0.0.1"],
    }  # fmt: skip
    lines = ["[[bots]]", *(f"{key} = {json.dumps(value)}" for key, value in bot.items())]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path = folder / "archiver.toml"
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
    return path


async def _run(folder: Path, server: Server, config: Path, ids: list[str], *, sealed: bool) -> Cost:
    connection = await asyncpg.connect(server.named("round"))
    try:
        await connection.execute("INSERT INTO archive_queue (bot, session_id) SELECT 'bot', unnest($1::text[])", ids)
        await server.administer("CHECKPOINT")
        os.sync()
        before = server.cpu_seconds()
        command = [sys.executable, "-m", "archiver", "--config", str(config), "worker", "--drain"]
        with Client("archiver", command, folder / "log") as client:
            cost = await asyncio.to_thread(client.wait)
        used = server.cpu_seconds() - before
        archived = await connection.fetchval("SELECT count(*) FROM archive_queue WHERE state = 'archived'")
        entries = await connection.fetchval("SELECT coalesce(max(published), 0) FROM archive_ledger_head")
        if archived != len(ids) or entries != (len(ids) + 1 if sealed else 0):
            raise NotTheSameWork(f"{archived} of {len(ids)} sessions archived, {entries} entries sealed")
    finally:
        await connection.close()
    return Cost(1000 * cost.cpu_seconds, 1000 * used)


def tell(out: Console, told: dict[tuple[str, str], dict[bool, list[Cost]]]) -> None:
    """What it cost."""
    table = Table("store", "size", "without", "with", "more: worker", "server", "both", "least..most", "ratio", "least..most")
    for (kind, label), costs in told.items():
        without, with_ = costs[False], costs[True]
        pairs = list(zip(without, with_, strict=True))
        more = [b.all - a.all for a, b in pairs]
        ratios = [b.all / a.all for a, b in pairs]
        table.add_row(
            kind, label,
            f"{statistics.median(each.all for each in without):.2f}", f"{statistics.median(each.all for each in with_):.2f}",
            f"{statistics.median(b.worker - a.worker for a, b in pairs):.2f}",
            f"{statistics.median(b.server - a.server for a, b in pairs):.2f}",
            f"{statistics.median(more):.2f}", f"{min(more):.2f}..{max(more):.2f}",
            f"{statistics.median(ratios):.3f}", f"{min(ratios):.3f}..{max(ratios):.3f}",
        )  # fmt: skip
    out.print("processor time of a session in milliseconds, worker and database together; medians")
    out.print(table)


# --- many entries

FILL = """
WITH added AS (
    INSERT INTO archive_queue (bot, session_id, user_id, started_at)
    SELECT 'bot', 's-' || lpad(n::text, 20, '0'), 'user ' || n % 1000, now() - interval '1 day'
    FROM generate_series($1::int, $2::int) n
    RETURNING id, session_id
), asked AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'asked', 1, 'worker 1', jsonb_build_object('http_status', 200, 'status', 'success', 'answer',
        '{"recording":[{"fileName":"a.wav","fileUrl":"https://media.example.com/a/b/c/a.wav?X-Amz-Signature=00"}],"status":"success"}')
    FROM added
)
INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type, source_name,
                                 queue_id, seconds)
SELECT 'bot', session_id, 'recording', 1, 'a.wav', 'bot=bot/' || session_id || '/a.wav', 64000,
       encode(sha256(session_id::bytea), 'hex'), 'audio/wav', 'a.wav', id, 8
FROM added"""

SETTLED = "UPDATE archive_queue SET state = 'archived', finished_at = now(), epoch = 1, calls = 1"

WAITING = """
INSERT INTO archive_ledger_outbox (event, queue_id, body)
SELECT 'settled', q.id, archive_ledger_body(q, jsonb_build_array(archive_ledger_file(r)), 'worker 1')
FROM archive_queue q JOIN archived_recordings r ON r.queue_id = q.id ORDER BY q.id"""


TOLD = """
SELECT count(*), sum(hashtextextended(
    concat_ws('|', q.session_id, q.bot, q.kind, q.state, q.metadata, q.call, r.store_key, r.bytes, r.sha256), 0))
FROM archive_queue q LEFT JOIN archived_recordings r ON r.queue_id = q.id"""


async def many(folder: Path, store_folder: Path, server: Server, count: int, out: Console) -> None:
    """Seal so many entries, audit them, and rebuild another database from them."""
    dsn = await server.create("many", "template_archiver")
    key = folder / "evidence.key"
    evidence = EvidenceSettings(key_file=key, origin=ORIGIN)
    store = LocalStore(store_folder, Buffers(64 * 2**20))
    async with Database(dsn, pool_size=8) as database:
        sealer = Sealer(Ledger(database), store, Terms(evidence, PATH, timedelta(minutes=1)))
        await sealer.finish()
        async with database.connection() as connection:
            for first in range(1, count + 1, 20_000):
                await connection.execute(FILL, first, min(first + 19_999, count), timeout=600)
            await connection.execute("ALTER TABLE archive_queue DISABLE TRIGGER USER", timeout=60)
            await connection.execute(SETTLED, timeout=3600)
            await connection.execute("ALTER TABLE archive_queue ENABLE TRIGGER USER", timeout=60)
            await connection.execute(WAITING, timeout=3600)
            await connection.execute("ANALYZE", timeout=600)
        before, began, used = server.cpu_seconds(), time.perf_counter(), time.process_time()
        sealed = await sealer.finish()
        took, used, served = time.perf_counter() - began, time.process_time() - used, server.cpu_seconds() - before
        if sealed != count:
            raise NotTheSameWork(f"{sealed} of {count} entries sealed")
        ours, theirs = 1000 * used / count, 1000 * served / count
        out.print(f"sealed {count:,} entries in {took:.0f} s: {ours:.3f} ms of the sealer, {theirs:.3f} ms of the database each; "
                  f"peak {_peak() / 1e6:.0f} MB", soft_wrap=True)  # fmt: skip
        objects: dict[str, tuple[int, int]] = {}
        async for each in store.list():
            kind = each.key.split("/")[1] if each.key.startswith("evidence/") else "records"
            number, size = objects.get(kind, (0, 0))
            objects[kind] = number + 1, size + (each.bytes or 0)
        for kind, (number, size) in sorted(objects.items(), key=lambda item: -item[1][1]):
            out.print(f"  {kind}: {number:,} objects, {size / 1e6:.1f} MB")
        out.print(f"  requests an entry: {sum(number for number, _ in objects.values()) / count:.3f}")
        async with database.connection() as connection:
            await connection.execute("VACUUM archive_ledger_batches", timeout=600)
            index = await connection.fetchval(
                "SELECT pg_total_relation_size('archive_ledger') + pg_total_relation_size('archive_ledger_batches')"
            )
        out.print(f"  database: {index / count:.0f} bytes an entry")
    await _in_a_process("audit", "audited", dsn, server, folder, store_folder, count, out)
    another = await server.create("rebuilt", "template_archiver")
    await _in_a_process("rebuild", "rebuilt", another, server, folder, store_folder, count, out)
    await _in_a_process("audit", "audited", another, server, folder, store_folder, count, out)
    async with Database(dsn) as one, Database(another) as two:
        if await _told(one) != await _told(two):
            raise NotTheSameWork("the database that was rebuilt says something else")


async def _in_a_process(
    what: str, done: str, dsn: str, server: Server, folder: Path, store_folder: Path, count: int, out: Console
) -> None:
    """One whose memory can be measured."""
    script = [sys.executable, "-m", "benchmarks.evidence.measured", what, dsn, str(store_folder), str(folder / "evidence.key")]
    before = server.cpu_seconds()
    with Client(what, script, folder / "log", env={"TMPDIR": str(folder)}) as client:
        cost = await asyncio.to_thread(client.wait, seconds=3600)
    ours, theirs, peak = 1000 * cost.cpu_seconds / count, 1000 * (server.cpu_seconds() - before) / count, cost.peak_bytes / 1e6
    out.print(
        f"{done} them in {cost.seconds:.0f} s: {ours:.3f} ms and {theirs:.3f} ms of the database each; peak {peak:.0f} MB",
        soft_wrap=True,
    )
    out.print((folder / "log").read_text().strip())


async def _told(database: Database) -> list[Any]:
    """A hash of all sessions and their files."""
    async with database.connection() as connection:
        found = await connection.fetch(TOLD, timeout=600)
    return [tuple(row) for row in found]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where stores, the database and the rest lie.")
@click.option("--store-folder", type=click.Path(path_type=Path, file_okay=False), help="Of the many entries: another disk.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--entries", type=int, default=1_000_000, show_default=True, help="0: none.")
@click.option("--sizes", default="64KB,1MB,8MB", show_default=True)
@click.option("--stores", default="folder,bucket", show_default=True)
def main(folder: Path | None, store_folder: Path | None, rounds: int, entries: int, sizes: str, stores: str) -> None:
    """What the evidence costs a session, interleaved with the same work without it; and what many entries cost."""
    adopt_orphans()
    configure(level="error", form="json")
    out = Console(width=130)
    with tempfile.TemporaryDirectory(dir=folder, prefix="bench-evidence-") as name:
        Path(name).chmod(0o755)
        asyncio.run(_main(Path(name), store_folder or Path(name) / "many", rounds, entries, sizes, stores, out))


async def _main(folder: Path, store_folder: Path, rounds: int, entries: int, sizes: str, stores: str, out: Console) -> None:
    SealingKey.make(folder / "evidence.key", "benchmark")
    async with running(folder / "postgres") as server:
        dsn = await server.create("template_archiver")
        async with Database(dsn) as database:
            await migrate(database)
        told = {}
        for kind, label in itertools.product(filter(None, stores.split(",")), filter(None, sizes.split(","))) if rounds else ():
            (folder / f"{kind}-{label}").mkdir()
            key = folder / f"{kind}-{label}/evidence.key"
            key.symlink_to(folder / "evidence.key")
            told[kind, label] = await measure(folder / f"{kind}-{label}", server, kind, label, rounds)
        if told:
            tell(out, told)
        if entries:
            await many(folder, store_folder, server, entries, out)


async def audited(dsn: str, store_folder: Path, key: Path) -> None:
    """The audit of the many entries, in a process of its own."""
    store = LocalStore(store_folder, Buffers(64 * 2**20))
    async with Database(dsn, pool_size=4) as database:
        report = await audit(database, store, Wanted(PATH, timedelta(days=7), key=SealingKey.load(key).public))
    # The recordings themselves are not there: that is all that may be found.
    counts = {name: count for name, count in report.findings.counts.items() if count}
    if set(counts) - {"recording_missing"}:
        raise NotTheSameWork(str(counts))
    found = {"entries": report.entries, "checkpoints": report.checkpoints, "sessions": report.sessions, "objects": report.objects}
    print("  " + ", ".join(f"{count:,} {name}" for name, count in found.items()))


async def rebuilt(dsn: str, store_folder: Path, key: Path) -> None:
    """The rebuild of an empty database, in a process of its own."""
    store = LocalStore(store_folder, Buffers(64 * 2**20))
    public = SealingKey.load(key).public
    terms = RebuildTerms(PATH, ["bench"], [], timedelta(minutes=1), public, frozenset(), "bench")
    async with Database(dsn, pool_size=4) as database:
        sealer = Sealer(Ledger(database), store, Terms(EvidenceSettings(key_file=key), PATH, timedelta(minutes=1)))
        found = await rebuild(database, store, sealer, terms)
    if found.counts or not found.sealed:
        raise NotTheSameWork(str(found.document()))
    print(f"  {found.entries:,} entries, {found.sessions:,} sessions, {found.files:,} files")


if __name__ == "__main__":
    main()
