"""A whole night on the oldest Postgres that the system has, which is not the embedded one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.conftest import settings_data
from tests.programs import installed
from tests.replicas import a_server
from tests.system.conftest import Program


def oldest_postgres() -> Path:
    """The folder of its programs; Debian has them off PATH, by version."""
    beside = ":".join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))))
    return Path(installed("postgres", "postgresql", beside=beside)).parent


async def test_it_is_migrated_granted_worked_off_sealed_and_audited(
    blank: Program, simulator: Simulator, memory: Path, tmp_path: Path
) -> None:
    simulator.set_history({"made": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z", "calls": 12}})
    SealingKey.make(tmp_path / "evidence.key", "test")
    async with a_server(memory, oldest_postgres()) as server:
        (version,) = await server.fetch("SHOW server_version_num")
        data: dict[str, Any] = settings_data(simulator, f"{server.url}?sslmode=disable", tmp_path / "store")
        blank.configure({**data, "evidence": {"key_file": str(tmp_path / "evidence.key")}})
        assert (await blank("migrate")).code == 0
        printed = await blank("roles", "--print")
        assert printed.code == 0
        connection = await asyncpg.connect(server.url)
        await connection.execute(printed.stdout)
        await connection.close()
        again = await blank("migrate")
        assert (again.code, "up to date" in again.stdout) == (0, True), (version, again)
        assert (await blank("backfill", "--from", "2026-03-01", "--to", "2026-03-02")).code == 0
        status = (await blank("status", "--json")).document
        assert status["sessions"]["archived"] == 12, (version, status["sessions"])
        for command in (
            ["verify"],
            ["audit"],
            ["reconcile", "--from", "2026-03-01", "--to", "2026-03-02"],
            ["recount", "--check"],
        ):
            ended = await blank(*command)
            assert ended.code == 0, (version, ended)
