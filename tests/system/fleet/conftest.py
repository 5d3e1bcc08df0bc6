"""A fleet of worker processes that drains a queue, what a fault has left of it, and a table of all faults."""

from __future__ import annotations

import hashlib
import signal
import statistics
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archiver.queue.sql import sql
from archiver.simulator.platform import Simulator
from tests.conftest import is_recording, settings_data
from tests.system.conftest import Program, Running, eventually

WORKERS = 3
LEASE_SECONDS = 3.0
BOUND_SECONDS = LEASE_SECONDS + 7
"""How soon after a fault the fleet has to work as before. It takes a second or two where the machine is not busy otherwise."""

BYTES = 2000
PACE = 24_000
"""Bytes a second of every download: there are always some under way. A worker archives at most 96 sessions a second by it, and
so a fault after 400 sessions of three workers comes more than a second after the first, which is what its rate is measured by.
"""

STALE = """
    WITH told AS (
        SELECT e.*, max(epoch) OVER (PARTITION BY queue_id ORDER BY id) AS highest_written,
               max(epoch) OVER (PARTITION BY queue_id ORDER BY at, id) AS highest_told
        FROM archive_history e
    )
    SELECT t.queue_id, t.id, t.event, t.epoch, t.actor FROM told t JOIN archive_queue q ON q.id = t.queue_id
    WHERE t.epoch < t.highest_written OR t.epoch < t.highest_told
       OR t.event = 'archived' AND t.epoch <> q.epoch
       OR t.event IN ('asked', 'stored', 'archived') AND NOT EXISTS (
              SELECT FROM archive_history c
              WHERE c.queue_id = t.queue_id AND c.event = 'claimed' AND c.epoch = t.epoch AND c.actor = t.actor)
"""
"""Accepted writes that should have been refused: after one of a higher epoch, or by another worker than the epoch's own."""


@dataclass(frozen=True)
class Aftermath:
    """What a fault has done, counted in the database, in the store and at the platform. A row of the table."""

    fault: str
    sessions: int
    lost: int
    """Not archived, or without a whole and equal file of which the ledger knows."""
    twice: int
    """Archived, recorded or stored more than once."""
    stale: int
    taken_over: int
    """Claims that ended by a rescue, or by being put back because their answer was lost."""
    before: float
    """Sessions a second, the median of the seconds before the fault."""
    settled_after: float | None
    """Seconds from the fault's end to the next session that was settled."""
    recovered_after: float | None
    """Seconds from the fault's end to the first second with half as many as before (as the workers that are left could do)."""


class Fleet:
    """Three workers of one bot, on a database and a store of their own. Times are those of the machine's clock."""

    def __init__(self, folder: Path, simulator: Simulator, database_url: str, record: Callable[[str, object], None]) -> None:
        self.folder = folder
        self.root = folder / "store"
        self.simulator = simulator
        self.database_url = database_url
        self.workers: list[Running] = []
        self.sessions = 0
        self._record = record
        self._program = Program(folder)
        self._sql: asyncpg.Connection[asyncpg.Record] | None = None
        self._hurt_at = 0.0
        self.over_at = 0.0
        self.configure()

    def configure(self, **database: Any) -> None:
        """Write the configuration of workers that are started from now on."""
        data: dict[str, Any] = settings_data(self.simulator, self.database_url, self.root)
        data["worker"] |= {"concurrency": 8, "lease_seconds": LEASE_SECONDS}
        data["database"] |= database
        self._program.configure(data)

    async def close(self) -> None:
        await self._program.close()
        if self._sql is not None:
            self._sql.terminate()

    # --- what happens

    async def enqueue(self, count: int, priority: str = "normal", *, pace: int = PACE) -> None:
        """Let the platform and the queue know so many sessions more, of one recording each, which comes at this pace."""
        first, last = self.sessions, self.sessions + count
        fault = {"kind": "slow", "bytes_per_second": pace, "times": None}
        for number in range(first, last):
            self._script(number, fault)
        await self.rows(
            """INSERT INTO archive_queue (bot, session_id, priority)
               SELECT 'bot', 's' || to_char(n, 'FM0000'), $3 FROM generate_series($1::integer, $2::integer - 1) n""",
            first, last, priority,
        )  # fmt: skip
        self.sessions = last

    async def start(self, count: int = WORKERS, *options: str, environment: dict[str, str] | None = None) -> None:
        """So many workers more, ready to claim. They drain, unless `options` say something else."""
        options = options or ("worker", "--drain")
        started = [await self._program.start(*options, environment=environment) for _ in range(count)]
        self.workers += started
        for worker in started:
            await worker.printed("worker_started", timeout=60)

    async def slow_down(self, ids: Iterable[int]) -> None:
        """Whoever has these sessions next is at work on them for a second, which can be seen."""
        fault = {"kind": "slow", "bytes_per_second": BYTES, "times": None}
        for row in await self.rows("SELECT session_id FROM archive_queue WHERE id = ANY ($1)", list(ids)):
            self._script(int(row["session_id"][1:]), fault)

    def _script(self, number: int, fault: dict[str, Any]) -> None:
        recording = {"file_name": "a.wav", "audio": {"bytes": BYTES, "seed": number}, "faults": [fault]}
        self.simulator.script({"session_id": f"s{number:04}", "recordings": [recording]})

    def hurt(self) -> None:
        """The fault begins now: up to here the rate is as it should be."""
        self._hurt_at = self.over_at = time.time()

    def over(self) -> None:
        """The fault has ended now: from here on recovery is measured, otherwise from its beginning."""
        self.over_at = time.time()

    async def rows(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        if self._sql is None or self._sql.is_closed():
            self._sql = await asyncpg.connect(self.database_url, timeout=5, server_settings={"application_name": "observer"})
        return await self._sql.fetch(sql, *args)

    async def until(self, sql: str, *args: Any, timeout: float = 90) -> list[asyncpg.Record]:
        """The rows of a query, as soon as there are any, whatever happens to the database meanwhile."""

        async def look() -> list[asyncpg.Record]:
            ended = [worker.process.returncode for worker in self.workers]
            try:
                found = await self.rows(sql, *args)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                found = []
            assert found or None in ended, f"the whole fleet has ended: {ended}"
            return found

        try:
            return await eventually(look, timeout)
        except AssertionError as error:
            states = await self.rows("SELECT state, reason, count(*) FROM archive_queue GROUP BY 1, 2 ORDER BY 1, 2")
            logs = "\n".join("\n".join(worker.log[-20:]) for worker in self.workers)
            raise AssertionError(f"{error}\n{[tuple(row) for row in states]}\n{logs}") from None

    async def archived(self, count: int) -> None:
        """So many sessions are archived."""
        await self.until("SELECT 1 FROM archive_queue WHERE state = 'archived' HAVING count(*) >= $1", count)

    async def held_by(self, worker: Running) -> dict[int, int]:
        """The rows that a worker has claimed, with their epochs."""
        sql = "SELECT q.id, q.epoch FROM archive_queue q JOIN archive_workers w ON w.id = q.worker_id WHERE w.pid = $1"
        return {row["id"]: row["epoch"] for row in await self.rows(sql, worker.process.pid)}

    async def drained(self, *survivors: Running) -> None:
        """These workers, or all, end by themselves, having found nothing incomplete."""
        for worker in survivors or self.workers:
            ended = await worker.ended(timeout=90)
            assert ended.code == 0, ended.stderr[-4000:]

    async def dismissed(self) -> None:
        """These workers end when told to."""
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        for worker in self.workers:
            assert (await worker.ended()).code == 143

    # --- what is left

    def files(self) -> dict[str, Path]:
        """The final files by their keys."""
        return {
            path.relative_to(self.root).as_posix(): path
            for path in self.root.rglob("*")
            if is_recording(path) and not path.name.endswith(".part")
        }

    def parts(self) -> list[Path]:
        """The temporary files."""
        return list(self.root.rglob(".*.part"))

    async def aftermath(self, fault: str, *, strength: float = 1.0) -> Aftermath:
        """Count, record for the table, and then assert that nothing is lost, double or stale and that the fleet recovered.
        `strength`: the part of the fleet that is left.
        """
        rows = await self.rows("SELECT id, session_id, state, finished_at FROM archive_queue")
        ledger = await self.rows("SELECT session_id, store_key, sha256 FROM archived_recordings")
        events = await self.rows("SELECT queue_id FROM archive_history WHERE event = 'archived'")
        files = self.files()
        states = {row["session_id"]: row["state"] for row in rows}
        sound = {row["session_id"] for row in ledger if self._is_sound(row, files) and states[row["session_id"]] == "archived"}
        twice = _repeated(row["session_id"] for row in ledger) | _repeated(path.parts[-3] for path in files.values())
        twice |= {row["session_id"] for row in rows if row["id"] in _repeated(event["queue_id"] for event in events)}
        stale = await self.rows(STALE)
        times = sorted(row["finished_at"].timestamp() for row in rows if row["state"] == "archived")
        before = _rate_before(times, self._hurt_at)
        taken_over = await self.rows(
            """SELECT 1 FROM archive_history
               WHERE event = 'rescued' OR event = 'handed_back' AND data ->> 'reason' = 'claim_unanswered'"""
        )
        found = Aftermath(
            fault=fault,
            sessions=len(rows),
            lost=self.sessions - len(sound),
            twice=len(twice),
            stale=len(stale),
            taken_over=len(taken_over),
            before=before,
            settled_after=next((at - self.over_at for at in times if at >= self.over_at), None),
            recovered_after=_recovered_after(times, self.over_at, before * strength / 2),
        )
        self._record("fleet", asdict(found))
        assert (found.sessions, found.lost, found.twice, found.stale) == (self.sessions, 0, 0, 0), (found, stale[:5])
        assert len(events) == self.sessions
        assert sorted(files) == sorted(row["store_key"] for row in ledger), "a file that the ledger doesn't know"
        assert self.parts() == []
        assert await self.rows("SELECT * FROM archive_leftovers") == []
        assert await self.rows(sql("counts/recount").text, False) == [], "the counts are not those of the rows"
        report = self.simulator.report()
        assert len(report["api"]["by_session"]) == self.sessions
        assert report["media"]["complete"] >= self.sessions
        assert (report["media"]["altered_urls"], report["media"]["leaked_auth"]) == (0, 0)
        assert found.settled_after is not None
        assert found.settled_after < BOUND_SECONDS, found
        assert found.recovered_after is not None, found
        assert found.recovered_after < BOUND_SECONDS, found
        return found

    def _is_sound(self, recorded: asyncpg.Record, files: dict[str, Path]) -> bool:
        path = files.get(recorded["store_key"])
        if path is None or self.simulator.sha256_of(recorded["session_id"]) != [recorded["sha256"]]:
            return False
        return [hashlib.sha256(path.read_bytes()).hexdigest()] == self.simulator.sha256_of(recorded["session_id"])


def _repeated(values: Iterable[Any]) -> set[Any]:
    return {value for value, times in Counter(values).items() if times > 1}


def _rate_before(times: list[float], moment: float) -> float:
    seconds = [moment - back for back in range(int(moment - times[0]) + 1)]
    counts = [bisect_left(times, end) - bisect_left(times, start) for end, start in pairwise(seconds)]
    assert counts, "the fault came within a second of the first session"
    return statistics.median(counts)


def _recovered_after(times: list[float], moment: float, enough: float) -> float | None:
    first = bisect_left(times, moment)
    return next(
        (at - moment for place, at in enumerate(times[first:], first) if bisect_left(times, at + 1) - place >= enough), None
    )


@asynccontextmanager
async def a_fleet(
    folder: Path, simulator: Simulator, database_url: str, record: Callable[[str, object], None]
) -> AsyncIterator[Fleet]:
    """A fleet without workers yet; whatever still runs of it at the end is ended."""
    fleet = Fleet(folder, simulator, database_url, record)
    try:
        yield fleet
    finally:
        await fleet.close()


@pytest.fixture
async def fleet(
    tmp_path: Path, simulator: Simulator, database_url: str, record_property: Callable[[str, object], None]
) -> AsyncIterator[Fleet]:
    """A fleet on a database of its own."""
    async with a_fleet(tmp_path, simulator, database_url, record_property) as fleet:
        yield fleet


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What `pytest tests/fleet` prints besides: the table of the faults."""
    reports = [report for found in terminalreporter.stats.values() for report in found if isinstance(report, pytest.TestReport)]
    called = [report for report in reports if report.when == "call"]
    rows: list[Any] = [value for report in called for name, value in report.user_properties if name == "fleet"]
    if not rows:
        return
    terminalreporter.section(f"faults, {WORKERS} workers, lease {LEASE_SECONDS:.0f} s")
    line = "{:<50} {:>8} {:>6} {:>6} {:>6} {:>11} {:>8} {:>8} {:>10}"
    terminalreporter.write_line(
        line.format("fault", "sessions", "lost", "twice", "stale", "taken over", "before", "next", "recovered")
    )
    for row in sorted(rows, key=lambda row: str(row["fault"])):
        numbers = [row[key] for key in ("sessions", "lost", "twice", "stale", "taken_over")]
        seconds = ["never" if row[key] is None else f"{row[key]:.1f} s" for key in ("settled_after", "recovered_after")]
        terminalreporter.write_line(line.format(row["fault"], *numbers, f"{row['before']:.0f}/s", *seconds))
    terminalreporter.write_line("stale: writes accepted that should have been refused. next, recovered: from the fault's end")
    terminalreporter.write_line("to the next session settled, and to the first second with half as many as before.")
