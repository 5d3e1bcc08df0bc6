"""One fault a test, among a thousand sessions or more: nothing is lost, nothing double, and the fleet goes on within seconds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from archiver.postgres.database import Database
from archiver.postgres.embedded.server import embedded_postgres
from archiver.postgres.migrate import migrate
from archiver.simulator.platform import Simulator
from tests.system.conftest import Running, eventually
from tests.system.fleet.conftest import WORKERS, Fleet, a_fleet
from tests.worker.conftest import TcpProxy

pytestmark = [pytest.mark.once, pytest.mark.timeout(240)]
"""More than usual: a machine that is busy otherwise takes its time for so many sessions."""


@pytest.mark.parametrize("replaced", [False, True], ids=["for_good", "replaced"])
async def test_two_of_three_workers_are_killed(fleet: Fleet, replaced: bool) -> None:
    await fleet.enqueue(1000)
    await fleet.start()
    await fleet.archived(400 if replaced else 600)
    killed, others = fleet.workers[:2], fleet.workers[2:]
    fleet.hurt()
    for worker in killed:
        worker.send(signal.SIGKILL)
    for worker in killed:
        assert (await worker.ended()).code == 137
    if replaced:
        await fleet.start(2)
        others = fleet.workers[2:]
    await fleet.drained(*others)
    name = "two of three workers killed" + (", replaced" if replaced else "")
    found = await fleet.aftermath(name, strength=1 if replaced else 1 / 3)
    assert found.taken_over > 0
    assert (await fleet.rows("SELECT sum(crashes) AS n FROM archive_queue"))[0]["n"] == found.taken_over


HELD = "SELECT 1 FROM archive_queue q JOIN unnest($1::bigint[], $2::bigint[]) h (id, epoch) USING (id) HAVING "


@pytest.mark.parametrize("others", ["at_work_on_them", "done_with_them"])
async def test_a_worker_comes_back_whose_sessions_others_have_taken_over(fleet: Fleet, others: str) -> None:
    """It was stopped for longer than its lease. Others are at work on its sessions, and it is in the middle of them too; or they
    are done, and it has stored some as well: its word of that is still on the line, and reaches the database before it wakes.
    """
    # What is put back comes after all that waits already, except in a class of its own.
    await fleet.enqueue(700)
    await fleet.enqueue(300, priority="low")
    async with TcpProxy(fleet.database_url) as proxy:
        await fleet.start(1, "worker", environment={"ARCHIVER_DATABASE__URL": proxy.url})
        await fleet.start(WORKERS - 1, "worker")
        dead = fleet.workers[0]
        await fleet.archived(400)
        fleet.hurt()
        if others == "done_with_them":
            await _held_up(fleet, dead, proxy)
        held = await _stopped(fleet, dead)
        if others == "at_work_on_them":
            await fleet.slow_down(held)
        wanted = "q.epoch >= h.epoch + 2 AND q.state = 'claimed'"
        wanted = f"bool_or({wanted})" if others == "at_work_on_them" else "bool_and(q.state = 'archived')"
        await fleet.until(HELD + wanted, list(held), list(held.values()))
        finals = {key: path.stat() for key, path in fleet.files().items()}
        foreign = await _leave_parts(fleet, list(held))
        await fleet.enqueue(400)
        fleet.over()
        proxy.flow()
        dead.send(signal.SIGCONT)
        await dead.printed("worker_lease_lost")
        await fleet.archived(fleet.sessions)
        await fleet.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM archive_leftovers)")
        await fleet.dismissed()

    for part in foreign:
        assert part.read_bytes() == b"somebody else's"
        part.unlink()
    now = {key: path.stat() for key, path in fleet.files().items()}
    assert [key for key, old in finals.items() if (old.st_ino, old.st_mtime_ns) != (now[key].st_ino, now[key].st_mtime_ns)] == []
    await fleet.aftermath(f"stopped past its lease, others {others.replace('_', ' ')}")
    await _assert_loss_is_told(fleet, dead)


async def _stopped(fleet: Fleet, worker: Running) -> dict[int, int]:
    """Stop a worker that has sessions in its hands; which, with their epochs."""

    async def look() -> dict[int, int]:
        worker.send(signal.SIGSTOP)
        await asyncio.sleep(0.3)  # what it has sent already, the database still carries out; nobody tells when that is over
        if not (held := await fleet.held_by(worker)):
            worker.send(signal.SIGCONT)
        return held

    return await eventually(look)


async def _leave_parts(fleet: Fleet, ids: list[int]) -> list[Path]:
    """Temporary files that look like another worker's, next to those of these rows: of those that have a folder, once one has."""
    rows = await fleet.rows("SELECT id, session_id FROM archive_queue WHERE id = ANY ($1)", ids)

    async def look() -> list[Path]:
        return [
            folder / f".session-{row['id']}.worker-999999.epoch-1.part"
            for row in rows
            for folder in fleet.root.glob(f"*/*/{row['session_id']}/recording")
        ]

    parts = await eventually(look)
    for part in parts:
        part.write_bytes(b"somebody else's")
    return parts


async def _held_up(fleet: Fleet, worker: Running, proxy: TcpProxy) -> None:
    """Hold up what a worker says to the database, until sessions are stored that the database knows nothing of."""

    async def look() -> bool:
        proxy.hang()
        await asyncio.sleep(0.5)  # nobody tells when it has sent its word
        ids = list(await fleet.held_by(worker))
        rows = await fleet.rows("SELECT session_id FROM archive_queue WHERE id = ANY ($1)", ids)
        if any(path for row in rows for path in fleet.root.glob(f"*/*/{row['session_id']}/recording/a.wav")):
            return True
        proxy.flow()
        return False

    await eventually(look)


async def _assert_loss_is_told(fleet: Fleet, worker: Running) -> None:
    """Every session that was taken from it is in its log and counted, no other is, and it went on as a new worker."""
    names = [f"worker {line['worker']}" for line in worker.events if line["event"] == "worker_started"]
    rescued = await fleet.rows(
        """SELECT q.session_id, e.epoch - 1 AS epoch FROM archive_history e JOIN archive_queue q ON q.id = e.queue_id
           WHERE e.event = 'rescued' AND e.data ->> 'from' = ANY ($1::text[]) ORDER BY 1, 2""",
        names,
    )
    told = [line for line in worker.events if line["event"] == "session_lease_lost"]
    assert told
    assert sorted((line["session"], line["epoch"]) for line in told) == [tuple(row) for row in rescued]
    assert [line["lost"] for line in worker.events if line["event"] == "worker_stopped"] == [len(told)]
    done = "SELECT 1 FROM archive_history WHERE event = 'archived' AND actor = ANY ($1::text[]) LIMIT 1"
    assert await fleet.rows(done, names[1:])


async def test_all_connections_are_terminated_again_and_again(fleet: Fleet) -> None:
    await fleet.enqueue(1200)
    await fleet.start()
    await fleet.archived(400)
    fleet.hurt()
    for times in range(1, 6):
        (cut,) = await fleet.rows(
            """SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
        )
        assert cut["n"] > WORKERS
        fleet.over()
        await fleet.archived(400 + 100 * times)
    await fleet.drained()
    await fleet.aftermath("all connections terminated, five times")


@pytest.fixture
async def private_server(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    """A Postgres that nobody else uses, migrated, and its postmaster.pid. While it is used, it is started again where it ends."""
    async with embedded_postgres(tmp_path / "postgres") as url:
        async with Database(url, pool_size=1) as database:
            await migrate(database)
        yield url, tmp_path / "postgres/data/postmaster.pid"


async def test_the_server_is_restarted_at_once(
    private_server: tuple[str, Path], tmp_path: Path, simulator: Simulator, record_property: Callable[[str, object], None]
) -> None:
    """SIGQUIT is what `pg_ctl -m immediate` sends: every process of the server drops what it does; the next start recovers."""
    url, pid_file = private_server
    async with a_fleet(tmp_path, simulator, url, record_property) as fleet:
        await fleet.enqueue(1000)
        await fleet.start()
        await fleet.archived(400)
        (old,) = await fleet.rows("SELECT pg_postmaster_start_time() AS at")
        fleet.hurt()
        os.kill(int(pid_file.read_text().split()[0]), signal.SIGQUIT)
        await fleet.until("SELECT 1 WHERE pg_postmaster_start_time() > $1", old["at"])
        fleet.over()
        await fleet.drained()
        await fleet.aftermath("server restarted (immediate)")


async def test_an_idle_transaction_holds_a_snapshot_all_the_time(fleet: Fleet) -> None:
    """No dead row can be removed. Measured is whether the rate of the beginning is kept to the end."""
    await fleet.enqueue(1200)
    idle = await asyncpg.connect(fleet.database_url)
    try:
        async with idle.transaction(isolation="repeatable_read"):
            await idle.execute("SELECT pg_current_xact_id()")
            pending = "SELECT count(*) FROM archive_queue WHERE state = 'pending'"
            assert await idle.fetchval(pending) == fleet.sessions
            await fleet.start()
            await fleet.archived(800)
            fleet.hurt()
            await fleet.drained()
            assert await idle.fetchval(pending) == fleet.sessions
    finally:
        await idle.close()
    await fleet.aftermath("idle transaction, snapshot held throughout")


async def test_an_idle_transaction_has_locked_pending_rows(fleet: Fleet) -> None:
    """The others are done meanwhile, and the fleet waits for these."""
    await fleet.enqueue(1200)
    await fleet.start()
    await fleet.archived(400)
    idle = await asyncpg.connect(fleet.database_url)
    try:
        fleet.hurt()
        async with idle.transaction():
            # While no claim is under way: one that is claimed between snapshot and lock would be locked, and not listed.
            nobody = await asyncpg.connect(fleet.database_url)
            try:
                async with nobody.transaction():
                    await nobody.execute("LOCK TABLE archive_queue IN SHARE MODE")
                    locked = await idle.fetch(
                        "SELECT id, epoch FROM archive_queue WHERE state = 'pending' ORDER BY run_at, id LIMIT 400 FOR UPDATE"
                    )
            finally:
                await nobody.close()
            assert len(locked) == 400
            await fleet.archived(fleet.sessions - 400)
            left = await fleet.rows("SELECT id, epoch FROM archive_queue WHERE state <> 'archived'")
            assert {tuple(row) for row in left} == {tuple(row) for row in locked}
            assert [worker.process.returncode for worker in fleet.workers] == [None] * WORKERS
        fleet.over()
    finally:
        await idle.close()
    await fleet.drained()
    await fleet.aftermath("idle transaction, 400 pending rows locked")


LISTENERS = """SELECT array_agg(pid) AS pids FROM pg_stat_activity
               WHERE datname = current_database() AND query ILIKE 'LISTEN%' AND pid <> ALL ($1::integer[]) HAVING count(*) = $2"""


async def test_the_listening_connections_are_half_open(fleet: Fleet) -> None:
    """Nothing comes through them any more, and nobody closes them. Measured is what is enqueued meanwhile, for an idle fleet.
    When the line is back, each worker listens by a new connection.
    """
    async with TcpProxy(fleet.database_url) as proxy:
        fleet.configure(listen_url=proxy.url)
        await fleet.enqueue(600)
        await fleet.start(WORKERS, "worker")
        (old,) = await fleet.until(LISTENERS, [], WORKERS)
        await fleet.archived(400)
        fleet.hurt()
        proxy.hang()
        await fleet.archived(600)
        await fleet.enqueue(400)
        fleet.over()
        await fleet.archived(1000)
        for worker in fleet.workers:
            await worker.printed("listener_disconnected", timeout=40)
        proxy.flow()
        await fleet.until(LISTENERS, old["pids"], WORKERS)
        await fleet.enqueue(100)
        await fleet.archived(1100)
        await fleet.dismissed()
    await fleet.aftermath("listening connections half open")


async def test_two_of_three_clocks_are_an_hour_wrong(fleet: Fleet) -> None:
    """One an hour ahead, one behind. Measured is the whole fleet's rate once all three are at work."""
    await fleet.enqueue(1200)
    (begun,) = await fleet.rows("SELECT clock_timestamp() AS at")
    for hours in (1, -1, 0):
        await fleet.start(1, environment=_apart(timedelta(hours=hours)))
    await fleet.archived(700)
    fleet.hurt()
    await fleet.drained()

    true_time = datetime.now(UTC)
    for worker, hours in zip(fleet.workers, (1, -1, 0), strict=True):
        ended = datetime.fromisoformat(worker.events[-1]["timestamp"])
        assert abs(ended - true_time - timedelta(hours=hours)) < timedelta(minutes=1), "its clock was not wrong"
        (own,) = (line["worker"] for line in worker.events if line["event"] == "worker_started")
        (done,) = await fleet.rows(
            "SELECT count(*) AS n FROM archive_history WHERE event = 'archived' AND actor = 'worker ' || $1::bigint", own
        )
        assert done["n"] > fleet.sessions / WORKERS / 4, "it hardly worked"
    found = await fleet.aftermath("two of three clocks an hour wrong")
    assert found.taken_over == 0
    (told,) = await fleet.rows(
        """SELECT least(min(at), (SELECT min(least(claimed_at, finished_at)) FROM archive_queue)) AS first,
                  greatest(max(at), (SELECT max(greatest(claimed_at, finished_at, run_at)) FROM archive_queue),
                           (SELECT max(archived_at) FROM archived_recordings)) AS last
           FROM archive_history WHERE event <> 'enqueued'"""
    )
    assert begun["at"] <= told["first"] <= told["last"] <= true_time, "a worker's clock has come into the database"
    assert await fleet.rows("SELECT * FROM archive_holds") == []


def _apart(by: timedelta) -> dict[str, str]:
    """A worker whose clock is wrong by so much, and whose lease is so long that nothing else could cost it."""
    clock = {"PYTHONPATH": str(Path(__file__).with_name("clock")), "CLOCK_AHEAD_SECONDS": str(by.total_seconds())}
    return {**clock, "ARCHIVER_WORKER__LEASE_SECONDS": "30"}
