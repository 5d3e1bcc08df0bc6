"""What each statement of the hot path reads, with 200,000 sessions archived and as many asleep; thorough: a million of each.

Measured are the plans that workers really have: prepared and run ten times while there was next to nothing, and kept while the
tables grew, without any ANALYZE; then those of a new connection, before and after one. Shared buffers are counted, never time.
EXPLAIN doesn't look into triggers and functions, so the transaction's own statistics say which tables were read as a whole.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from archiver.postgres.database import Database
from archiver.queue.sessions import MAX_CRASHES, MAX_STALLS, PROBE_EVERY
from archiver.queue.sql import sql
from tests.queue.conftest import stored_file

pytestmark = pytest.mark.once

MILLION = 1_000_000

MOST = {
    "claim/sessions": 2_000,
    "claim/sessions by age": 2_000,
    "claim/rechecks": 2_000,
    "claim/due_kinds": 340,
    "report/unknown_bots": 60,
    "budget/draw": 170,
    "upkeep/rescue": 15_000,
    "upkeep/rescue nothing": 1_300,
    "claim/release_orphans": 19_000,
    "claim/lost": 2_400,
    "worker/take_back": 33_000,
    "enqueue/sessions": 95_000,
    "settle/outcomes": 18_000,
    "settle/first_ask": 60,
    "discover/call_facts": 45_000,
    "report/enqueued_sessions": 7_000,
    "report/call_stories": 10_000,
    "report/unlisted_sessions": 30,
    "report/due_work": 30,
    "report/deadlines": 1_000,
    "figures/bots": 300,
    "figures/deadlines": 300,
    "figures/fleet": 60,
    "figures/budgets": 170,
    "report/oldest_verification": 60,
}
"""Shared buffers that a statement may touch: three times what it does with a million rows; with fewer a third less. A claim of
16; a thousand to enqueue, of which half are raised; 500 that are listed; 200 of all others. What a draw reads are the thousand
calls of its window.
"""

LARGE = ("archive_queue", "archive_events", "archived_recordings", "archive_calls")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

FILL = """
INSERT INTO archive_queue (bot, session_id, kind, state, reason, finished_at, first_asked_at, calls, recheck_at)
    SELECT 'bot-' || n % 3, 'a-' || lpad(n::text, 9, '0'), CASE WHEN n % 10 > 0 THEN 'recording' ELSE 'voicemail' END,
           CASE WHEN n % 2 > 0 THEN 'archived' ELSE 'unavailable' END, 'r', now(), now(), 2,
           CASE WHEN n % 8 = 0 THEN now() + interval '1 ms' * n + interval '1 day' * CASE WHEN n % 10 > 0 THEN 1 ELSE -1 END END
    FROM generate_series({at} + 1, {at} + {rows}) n;
INSERT INTO archive_queue (bot, session_id, kind, run_at)
    SELECT 'bot-' || n * 3 / ({rows} + 1), 's-' || lpad(({at} + n)::text, 9, '0'),
           CASE WHEN n % 10 > 0 THEN 'recording' ELSE 'voicemail' END,
           now() + interval '1 ms' * n + interval '1 day' * CASE WHEN n % 10 > 0 THEN 1 ELSE -1 END
    FROM generate_series(1, {rows}) n;
INSERT INTO archive_queue (bot, session_id, state, worker_id, epoch, claimed_at)
    SELECT 'bot-0', 'c-' || lpad(({at} + n)::text, 9, '0'), 'claimed', {worker}, 1, now() FROM generate_series(1, {few}) n;
INSERT INTO archive_queue (bot, session_id, kind, priority, run_at, archive_date)
    SELECT bot, concat_ws('-', 'd', {at}, priority, kind, n), kind, priority, now() - interval '1 ms' * n,
           now() - interval '1 day' * n
    FROM unnest('{{bot-0,bot-1,bot-2}}'::text[]) bot, unnest('{{recording,voicemail}}'::text[]) kind,
         unnest('{{high,normal,low}}'::text[]) priority, generate_series(1, {few}) n;
INSERT INTO archive_queue (bot, session_id, kind, state, reason, finished_at, recheck_at)
    SELECT bot, concat_ws('-', 'r', {at}, kind, n), kind, 'unavailable', 'r', now(), now() - interval '1 ms' * n
    FROM unnest('{{bot-0,bot-1,bot-2}}'::text[]) bot, unnest('{{recording,voicemail}}'::text[]) kind, generate_series(1, {few}) n;
INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, source_name, queue_id)
    SELECT 'bot', 'a-' || lpad(n::text, 9, '0'), 'recording', 1, 'a.wav', 'k/' || n, 44, repeat('0', 64), 'a.wav', n
    FROM generate_series({at} + 1, {at} + {rows} / 5) n;
INSERT INTO archive_events (queue_id, event, epoch, actor)
    SELECT n, 'enqueued', 0, 'x' FROM generate_series({at} + 1, {at} + {rows} / 2) n;
INSERT INTO archive_calls (key, at) SELECT 'other', now() - interval '1 ms' * n FROM generate_series(1, {rows} / 10) n;
INSERT INTO archive_calls (key, at) SELECT 'key', now() - interval '1 s' * n FROM generate_series(1, {few} * 5) n
"""
"""Archived or unavailable (a quarter of these to be asked for again), asleep or held, claimed by one worker, due, due to be
asked for again; a history and recordings of some; calls of two budgets.
"""


class Worker:
    """A connection as a worker's pool has it, with every statement prepared."""

    def __init__(self, connection: Any, worker_id: int) -> None:
        self.connection = connection
        self._worker_id = worker_id
        self._types: dict[str, list[str]] = {}

    async def fill(self, rows: int, few: int) -> None:
        async with self.connection.transaction():
            at = await self.connection.fetchval("SELECT coalesce(max(id), 0) FROM archive_queue")
            await self.connection.execute("SET LOCAL session_replication_role = replica")  # no triggers
            fill = FILL.format(at=at, rows=rows, few=few, worker=self._worker_id)
            await self.connection.execute(fill, timeout=300)  # no statement of a worker's

    async def prepare(self) -> None:
        for name in MOST:
            await self.connection.execute(f'PREPARE "{name}" AS {sql(name.split()[0]).text}')
        rows = await self.connection.fetch("SELECT name, parameter_types::text[] AS types FROM pg_prepared_statements")
        self._types = {row["name"]: row["types"] for row in rows}

    async def arguments(self, few: int) -> dict[str, str]:
        """What a worker sends with each statement, as SQL."""
        claimed = await self.connection.fetch("SELECT id, epoch FROM archive_queue WHERE state = 'claimed' LIMIT $1", few)
        asleep = "SELECT bot, session_id, kind FROM archive_queue WHERE state = 'pending' AND session_id LIKE 's-%' LIMIT $1"
        known = [tuple(row) for row in await self.connection.fetch(asleep, few * 5 // 2)]
        ids, epochs = [row["id"] for row in claimed], [row["epoch"] for row in claimed]
        budget = {"budget": "key", "windows": [timedelta(minutes=1), HOUR], "limits": [60_000, 1_800_000]}
        slots = {"worker_id": self._worker_id, "bot": "bot-1", "kind": "recording", "slots": 16, **budget}
        bots = ["bot-0", "bot-1", "bot-2"]
        rescue = {"max_crashes": MAX_CRASHES, "backoff_base": timedelta(seconds=2), "actor": "me", "worker_id": None}
        deadlines = {"bot": "bot-1", "retention": 90 * DAY, "time_per_call": timedelta(seconds=1), "max_rows": 1000}
        values: dict[str, dict[str, Any]] = {
            "claim/sessions": {**slots, "probe_every": PROBE_EVERY, "retention": None},
            "claim/sessions by age": {**slots, "probe_every": PROBE_EVERY, "retention": 90 * DAY},
            "claim/rechecks": {**slots, "due_by": None},
            "claim/due_kinds": {"bots": bots},
            "report/deadlines": {**deadlines, "budget_bots": ["bot-0", "bot-1"]},
            "report/unknown_bots": {"bots": bots},
            "figures/bots": {},
            "figures/deadlines": {"bots": bots, "retentions": [90 * DAY] * 3},
            "figures/fleet": {},
            "figures/budgets": {
                "budgets": ["key"],
                "keys": ["key", "key"],
                "lengths": budget["windows"],
                "limits": budget["limits"],
                "first": [True, False],
                "counted": [True, True],
            },
            "report/oldest_verification": {},
            "budget/draw": budget,
            "upkeep/rescue": rescue,
            "upkeep/rescue nothing": rescue,
            "claim/release_orphans": {"worker_id": self._worker_id, "working_on": []},
            "claim/lost": {"ids": ids, "epochs": epochs},
            "worker/take_back": {
                "worker_id": self._worker_id,
                "former": self._worker_id,
                "ids": ids,
                "epochs": epochs,
                "max_crashes": MAX_CRASHES,
                "max_returns": MAX_STALLS,
                "backoff_base": timedelta(seconds=2),
            },
            "enqueue/sessions": _enqueued([*known, *(("bot-0", f"new-{n}", "recording") for n in range(few * 5 // 2))]),
            "settle/outcomes": _settled(ids, epochs),
            "settle/first_ask": {"bots": bots, "too_early": [True, False, False], "in_time": [0, 1, 200]},
            **_listed([session_id for _, session_id, _ in known]),
        }
        return {name: await self._literals(name, given) for name, given in values.items()}

    async def _literals(self, name: str, given: dict[str, Any]) -> str:
        values = sql(name.split(maxsplit=1)[0]).arguments(given)
        texts = [
            await self.connection.fetchval(f"SELECT quote_nullable($1::{type_}::text)", value)
            for type_, value in zip(self._types[name], values, strict=True)
        ]
        return f"({', '.join(texts)})" if texts else ""

    async def measure(self, name: str, arguments: str) -> tuple[int, list[str]]:
        """How many buffers it touched, and which large tables were read as a whole. Nothing of what it writes stays."""
        transaction = self.connection.transaction()
        await transaction.start()
        try:
            if name == "upkeep/rescue":
                await self.connection.execute("UPDATE archive_workers SET expires_at = now() - interval '1 minute'")
            scans = "SELECT relname, seq_scan FROM pg_stat_xact_user_tables WHERE relname = ANY ($1)"
            before = dict(await self.connection.fetch(scans, LARGE))
            (found,) = await self.connection.fetchval(f'EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE "{name}" {arguments}')
            after = dict(await self.connection.fetch(scans, LARGE))
        finally:
            await transaction.rollback()
        buffers = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
        return buffers, [table for table in LARGE if after[table] > before[table]]

    async def too_much(self, when: str, rows: int, few: int) -> list[str]:
        """What reads more than it may, whichever way its plan is chosen."""
        arguments = await self.arguments(few)
        found = []
        for mode in ("auto", "force_generic_plan", "force_custom_plan"):
            await self.connection.execute(f"SET plan_cache_mode = {mode}")
            for name, most_of_a_million in MOST.items():
                most = most_of_a_million if rows >= MILLION else most_of_a_million * 2 // 3
                await self.measure(name, arguments[name])  # what a connection reads once, of the catalogues
                buffers, read = await self.measure(name, arguments[name])
                print(f"{when:24} {mode:18} {name:26} {buffers:8} of {most:8} {' '.join(read)}")
                if buffers > most or read:
                    found.append(f"{when}, {mode}: {name} touches {buffers} buffers, {most} at most; reads all of {read}")
        return found


def _enqueued(rows: list[tuple[str, str, str]]) -> dict[str, Any]:
    bots, ids, kinds = map(list, zip(*rows, strict=True))
    none, facts = [None] * len(rows), {"priorities": ["high"] * len(rows), "metadata": [{}] * len(rows), "actor": "me"}
    return {"bots": bots, "session_ids": ids, "kinds": kinds, "user_ids": none, "started_at": none, "ended_at": none, **facts}


def _listed(ids: list[str]) -> dict[str, dict[str, Any]]:
    """A stretch of a listing, by what is asked of it."""
    now = datetime.now(UTC)
    keys = {"session_ids": ids, "kinds": ["recording"] * len(ids)}
    times = {"started_at": [now] * len(ids), "ended_at": [now] * len(ids)}
    facts = {"user_ids": [None] * len(ids), "facts": [{"queue": "x"}] * len(ids), "lists_unanswered": True}
    return {
        "discover/call_facts": {"bot": "bot-0", **keys, **times, **facts},
        "report/enqueued_sessions": {"bot": "bot-0", **keys},
        "report/call_stories": {"bot": "bot-0", **keys},
        "report/unlisted_sessions": {"bot": "bot-0", "start": now - HOUR, "end": now, **keys},
        "report/due_work": {"bots": ["bot-0", "bot-1"]},
    }


def _settled(ids: list[int], epochs: list[int]) -> dict[str, Any]:
    places, many = range(1, len(ids) + 1), len(ids)
    return {
        "ids": ids,
        "epochs": epochs,
        "outcomes": [("not_ready", "retry", "unavailable", "failed", "archived")[n % 5] for n in places],
        "reasons": ["why"] * many,
        "details": [{"answer": 1}] * many,
        "delays": [HOUR] * many,
        "calls": [1] * many,
        "stores": [n % 5 == 4 for n in places],
        "listed": [1] * many,
        "keeps": [True] * many,
        "final": [False] * many,
        "files": [{"n": n, **stored_file().as_row()} for n in places if n % 5 == 4],
        "lines": ['[["asked", 1, 200, "success", ""]]' for _ in ids],
        "max_attempts": 3,
        "not_ready_give_up": DAY,
        "max_recheck_asks": 50,
        "recheck_unavailable": [DAY, 3 * DAY],
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("analysed", "rows"),
    [
        pytest.param(False, MILLION // 10, id="new"),
        pytest.param(True, MILLION // 5, id="small and analysed"),
        pytest.param(True, MILLION, id="small and analysed, a million", marks=pytest.mark.thorough),
    ],
)
async def test_what_a_statement_reads_does_not_grow_with_the_tables(database: Database, analysed: bool, rows: int) -> None:
    async with database.connection() as one, database.connection() as other:
        for table in ("archived_recordings", "archive_findings", *LARGE[:2]):
            await one.execute(f"ALTER TABLE {table} SET UNLOGGED")  # loads sooner
        for table in LARGE:
            await one.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        await one.execute("INSERT INTO archive_bots (name) VALUES ('bot-0'), ('bot-1'), ('bot-2')")
        held = (
            "INSERT INTO archive_holds (bot, kind, reason, probe_at) SELECT name, 'voicemail', 'x', 'infinity' FROM archive_bots"
        )
        await one.execute(held)
        lease = "INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('', 1, '', now() + interval '1 day')"
        worker_id = await one.fetchval(f"{lease} RETURNING id")
        old, new = Worker(one, worker_id), Worker(other, worker_id)
        if analysed:
            await new.fill(rows=20, few=2)
            await other.execute("VACUUM ANALYZE")
        await old.prepare()
        arguments = await old.arguments(2)
        for name in MOST:
            for _ in range(10):
                await old.measure(name, arguments[name])
        await new.fill(rows, few=200)
        found = await old.too_much("prepared before", rows, 200)
        await new.prepare()
        found += await new.too_much("prepared after", rows, 200)
        await other.execute("ANALYZE")
        found += await new.too_much("analysed", rows, 200)
        assert not found, "\n".join(found)
