-- phase: expand
-- transaction: none
-- min_program: 0.1
-- What waits, by its call's age: of bots whose recordings the platform deletes after a time, what is nearest to that is claimed first.
-- Its condition says "pending" in other words: no statement that goes by run_at may take this index for another way to the same rows,
-- nor one that goes by age the other one. run_at is in it so that what sleeps is passed over without a look at its row.

-- No lock_timeout: it would outlast the migration, and these wait for others while nobody who works waits for them.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_oldest;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_oldest ON archive_queue (bot, kind, priority, archive_date, run_at)
    WHERE finished_at IS NULL AND worker_id IS NULL;
