"""`workers`: who is alive and what each holds."""

from __future__ import annotations

import signal
from typing import Any

from archiver.simulator.platform import Simulator
from tests.system.conftest import Program, eventually


async def test_workers_tells_who_is_alive_and_what_each_holds(archiver: Program, simulator: Simulator, sql: Any) -> None:
    assert (await archiver("workers")).stdout == "no worker is at work\n"
    assert (await archiver("workers", "--json")).document == {"workers": []}
    simulator.script({"session_id": "slow", "recordings": [{"faults": [{"kind": "stall"}]}]})
    await archiver("enqueue", "slow")
    worker = await archiver.start("worker")
    started = await worker.logged("worker_started")

    async def holds() -> Any:
        found = (await archiver("workers", "--json")).document["workers"]
        return found if found and found[0]["claimed"] else None

    (found,) = await eventually(holds)

    assert (found["id"], found["pid"], found["alive"]) == (started["worker"], worker.process.pid, True)
    assert found["started_at"] <= found["renewed_at"] < found["lease_until"]
    (held,) = found["sessions"]
    assert (held["bot"], held["session_id"], held["kind"]) == ("bot", "slow", "recording")
    assert held["since"] >= found["started_at"]
    told = (await archiver("workers")).stdout
    assert "alive" in told
    assert "slow (bot, recording) since" in told

    worker.send(signal.SIGKILL)
    await worker.ended()
    await sql.execute("UPDATE archive_workers SET expires_at = now() - interval '1 second'")
    (dead,) = (await archiver("workers", "--json")).document["workers"]
    assert (dead["alive"], dead["claimed"]) == (False, 1)
    result = await archiver("workers")
    assert result.code == 0
    assert "DEAD, its sessions are about to be taken over" in result.stdout
    assert "DEAD" in (await archiver("status")).stdout

    await sql.execute("DELETE FROM archive_workers")
    (lost,) = (await archiver("workers", "--json")).document["workers"]
    assert (lost["id"], lost["host"], lost["alive"], lost["claimed"]) == (found["id"], None, False, 1)
    assert "slow" in (await archiver("workers")).stdout
    assert "off the list" in (await archiver("status")).stdout
