"""What a worker does for the fleet, whatever else goes wrong."""

from __future__ import annotations

from tests.worker.conftest import Logged, WorkerHarness


async def test_dead_workers_are_rescued_though_history_cannot_be_pruned(harness: WorkerHarness, logged: Logged) -> None:
    (one,) = await harness.scripted(1)
    await harness.rows("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
                          BEGIN RAISE EXCEPTION 'audit: nothing is deleted'; END $$""")
    await harness.rows("CREATE TRIGGER refuse BEFORE DELETE ON archive_events EXECUTE FUNCTION refuse()")
    settings = harness.settings(database={"keep_history": "1d"}, worker={"lease_seconds": 1, "concurrency": 1})
    async with harness.shift(settings) as shift:
        await logged.until("upkeep_failed", times=2)
        await harness.rows(
            """WITH w AS (INSERT INTO archive_workers (host, pid, version, expires_at) VALUES ('h', 1, 'v', now()) RETURNING id)
               UPDATE archive_queue SET state = 'claimed', worker_id = (SELECT id FROM w), epoch = epoch + 1, finished_at = NULL,
                                        claimed_at = now()
               WHERE session_id = $1 AND state = 'pending'""",
            one,
        )
        await harness.eventually("SELECT 1 FROM archive_queue WHERE state = 'archived'")
        await shift.stopped()


async def test_changes_are_folded_whatever_else_fails(harness: WorkerHarness, logged: Logged) -> None:
    """What reads counts takes long where nobody folds them: folding must not wait for such a look."""
    await harness.scripted(3)
    await harness.rows("ALTER TABLE archive_leftovers RENAME TO gone")
    async with harness.shift() as shift:
        await logged.until("upkeep_failed", times=1)
        await harness.eventually("SELECT 1 FROM archive_rollup HAVING sum(sessions) = 3")
        await shift.stopped()
