"""This release on the database of the one before: what it brings may still be missing there."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from pathlib import Path
from typing import Any

from archiver.postgres.database import Database
from archiver.postgres.migrate import migrate
from archiver.postgres.migrations import PROGRAM, migrations
from archiver.simulator.platform import Simulator
from tests.conftest import settings_data
from tests.servers import free_ports
from tests.system.conftest import ROOT, Program, archived


async def test_it_archives_and_tells_as_long_as_it_does_without_what_is_missing(
    blank: Program, simulator: Simulator, empty_database_url: str, tmp_path: Path
) -> None:
    needed = [migration for migration in migrations() if migration.needed_by(PROGRAM)]
    assert needed != migrations(), "nothing may be missing: then there is nothing to try"
    (tmp_path / "migrations").mkdir()
    for migration in needed:
        shutil.copy(ROOT / f"migrations/{migration.file_name}.sql", tmp_path / "migrations")
    async with Database(empty_database_url) as database:
        await migrate(database, tmp_path / "migrations")
    data: dict[str, Any] = settings_data(simulator, empty_database_url, tmp_path / "store")
    (port,) = free_ports(1)
    data["notify"] = {"url": "http://127.0.0.1:9/", "secret": "whsec_" + "c2VjcmV0" * 4}
    data["metrics"] = {"listen": f"127.0.0.1:{port}"}
    blank.configure(data)
    await archived(blank, simulator, "s-1", "s-2")
    worker = await blank.start("worker")
    await worker.logged("worker_started")
    status = await blank("status", "--json")
    assert (status.code, status.document["sessions"]["archived"]) == (0, 2)
    assert "database_older" in status.stderr
    doctor = await blank("doctor", "--json")
    found = {finding["check"]: finding for finding in doctor.document["findings"]}
    assert (found["database"]["verdict"], found["database: version"]["verdict"]) == ("ok", "warning")
    assert "archiver migrate" in found["database: version"]["hint"]
    nightly = await blank("nightly", "--json")
    assert "lacks what this version needs" not in nightly.stderr, nightly
    metrics = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
    assert 'archiver_queue_sessions{bot="bot",state="archived"} 2.0' in metrics
    assert "\narchiver_notifications_waiting " not in metrics
    assert f"archiver_schema_version {len(needed)}.0" in metrics
    told = {line["event"] for line in worker.events if line["level"] in ("warning", "error")}
    assert told == {"database_older", "notifications_unavailable"}


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read()).decode()
