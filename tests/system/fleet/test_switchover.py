"""Postgres takes no writes any more where workers are connected to it, because another server does or because its disk is full:
they are back within seconds of there being one that does, without a restart, and nothing is lost, double or counted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.simulator.platform import Simulator
from tests.replicas import Server, a_server, a_standby, switch_over
from tests.system.conftest import eventually
from tests.system.fleet.conftest import Fleet, a_fleet
from tests.worker.conftest import TcpProxy

pytestmark = [pytest.mark.once, pytest.mark.timeout(240)]

WORKERS = 2
SESSIONS = 90
PACE = 3000
"""Bytes a second: sessions take two thirds of a second, so that there are always some under way, and enough are left."""

REFUSALS = 12
"""As many as a worker may have connections in its pool."""

SECONDS = 20
"""How long workers may take to be refused, and to be back. They take one or two where the machine is not busy otherwise."""


@pytest.fixture
async def server(memory: Path) -> AsyncIterator[Server]:
    """A Postgres that nobody else uses, migrated."""
    async with a_server(memory) as server:
        async with Database(server.url, pool_size=1) as database:
            await migrate(database)
        yield server


@pytest.fixture
async def standby(server: Server, memory: Path) -> AsyncIterator[Server]:
    """A hot standby of it."""
    async with a_standby(memory, server) as standby:
        yield standby


@pytest.fixture
async def fleet(
    server: Server, tmp_path: Path, simulator: Simulator, record_property: Callable[[str, object], None]
) -> AsyncIterator[Fleet]:
    """A fleet on that server."""
    async with a_fleet(tmp_path, simulator, server.url, record_property) as fleet:
        yield fleet


@pytest.fixture
async def line(server: Server) -> AsyncIterator[TcpProxy]:
    """The address that workers know: it leads to that server, until it is moved."""
    async with TcpProxy(server.url) as line:
        yield line


async def test_primary_and_standby_change_places(fleet: Fleet, server: Server, standby: Server, line: TcpProxy) -> None:
    """The address leads to the former primary for a while, which is a standby by then, and answers."""
    await _started(fleet, line)
    fleet.hurt()
    await switch_over(server, standby)
    await _refused(fleet)
    line.lead_to(standby.port)
    fleet.database_url = standby.url
    fleet.over()
    await _archived_as_ever(fleet, "primary and standby have changed places")


async def test_the_server_is_read_only_for_a_while(fleet: Fleet, server: Server, line: TcpProxy) -> None:
    """As managed servers are made whose disk is full, until there is room again. No connection is cut."""
    await _started(fleet, line)
    fleet.hurt()
    await _set_read_only(server, "on")
    await _refused(fleet)
    await _set_read_only(server, "off")
    fleet.over()
    await _archived_as_ever(fleet, "server read-only for a while")


async def _started(fleet: Fleet, line: TcpProxy) -> None:
    """The workers are in the midst of it. Their leases are so long that none is lost by this."""
    environment = {"ARCHIVER_DATABASE__URL": line.url, "ARCHIVER_WORKER__LEASE_SECONDS": "60"}
    await fleet.enqueue(SESSIONS, pace=PACE)
    await fleet.start(WORKERS, environment=environment)
    await fleet.archived(SESSIONS // 2)


async def _refused(fleet: Fleet) -> None:
    """Each worker has wanted to write where one can only read (so Postgres says, and so do we), so often that every connection of
    its pool may lead there.
    """

    async def look() -> bool:
        return all(sum("read-only" in line for line in worker.log) >= REFUSALS for worker in fleet.workers)

    await eventually(look, SECONDS)


async def _set_read_only(server: Server, value: str) -> None:
    await server.fetch(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await server.fetch("SELECT pg_reload_conf()")
    await server.until("SELECT 1 WHERE current_setting('default_transaction_read_only') = $1", value)


async def _archived_as_ever(fleet: Fleet, fault: str) -> None:
    """Each process, still as the same worker, is back at work; all sessions are archived once, none having failed."""
    started = [await worker.logged("worker_started") for worker in fleet.workers]
    await fleet.until(
        """SELECT 1 FROM archive_history WHERE event = 'archived' AND at > to_timestamp($1) AND actor = ANY ($2::text[])
           HAVING count(DISTINCT actor) = $3""",
        fleet.over_at, [f"worker {line['worker']}" for line in started], WORKERS, timeout=SECONDS,
    )  # fmt: skip
    await fleet.drained()
    events = [line["event"] for worker in fleet.workers for line in worker.events]
    assert events.count("worker_started") == WORKERS
    assert "session_lease_lost" not in events
    await fleet.aftermath(fault)
    assert await fleet.rows("SELECT * FROM archive_queue WHERE state <> 'archived' OR failures > 0 OR crashes > 0") == []
