"""A worker that runs notices that the database was migrated under it."""

from __future__ import annotations

import pytest

from archiver.errors import DatabaseTooNew, NotMigrated
from archiver.postgres.migrations import migrations
from archiver.worker import schema_watch
from tests.worker.conftest import Logged, WorkerHarness

pytestmark = pytest.mark.once  # what the database says is the same under every Python

STALL = {"kind": "stall", "at": 1000, "times": None}

MIGRATED = "INSERT INTO archive_migrations (version, name, sha256, min_program) VALUES ($1, 'later', 'x', $2)"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_watch, "LOOK_EVERY_SECONDS", 0.05)


@pytest.mark.parametrize(
    ("statement", "arguments", "error"),
    [
        (MIGRATED, (len(migrations()) + 1, "1000.0"), DatabaseTooNew),
        ("DELETE FROM archive_migrations WHERE version >= $1", (16,), NotMigrated),
        ("ALTER TABLE archive_migrations RENAME TO elsewhere", (), NotMigrated),
    ],
)
async def test_a_worker_ends_when_the_database_became_one_that_it_cannot_work_with(
    harness: WorkerHarness, logged: Logged, statement: str, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    """At once: what it has in hand goes back, to be done by a program that can."""
    await harness.scripted(3, faults=[STALL])
    async with harness.shift(harness.settings(worker={"drain_grace_seconds": 3600})) as shift:
        await harness.downloading(3)
        await harness.rows(statement, *arguments)
        with pytest.raises(error):
            await shift.ended()
    assert logged.named("database_unusable")
    assert await harness.states() == {"pending": 3}
    for row in (await harness.sessions()).values():
        assert (row["reason"], row["failures"], row["crashes"], row["checks"]) == ("worker_stopped", 0, 0, 0)
    assert await harness.rows("SELECT * FROM archive_workers") == []


async def test_a_worker_goes_on_over_a_migration_that_permits_it(harness: WorkerHarness, logged: Logged) -> None:
    async with harness.shift() as shift:
        await logged.until("worker_started")
        await harness.rows(MIGRATED, len(migrations()) + 1, "0.2")
        told = await logged.until("database_migrated")
        assert (told["before"], told["now"]) == (len(migrations()), len(migrations()) + 1)
        await harness.scripted(2)
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived' HAVING count(*) = 2")
        assert not shift.run.done()
    await harness.assert_accounted_for()


async def test_a_history_that_somebody_wrote_into_ends_no_worker(harness: WorkerHarness, logged: Logged) -> None:
    """No program would start on it, and it is said so; but who has begun needs not give up for a row that proves nothing."""
    async with harness.shift() as shift:
        await logged.until("worker_started")
        await harness.rows("UPDATE archive_migrations SET sha256 = 'x' WHERE version = 3")
        await logged.until("database_version_unknown")
        await harness.scripted(1)
        await harness.eventually("SELECT 1 FROM archive_sessions WHERE state = 'archived'")
        assert not shift.run.done()
