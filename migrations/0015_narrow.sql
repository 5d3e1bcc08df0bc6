-- phase: expand
-- transaction: none
-- min_program: 0.2
-- A recording is looked up by its key alone: its hash finds it in a quarter of the bytes. Nothing looks it up by its session's ID: that
-- has its number.

-- No lock_timeout: it would outlast the migration, and these wait for others while nobody who works waits for them.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archived_recordings_place;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archived_recordings_place ON archived_recordings USING hash (store_key);
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archived_recordings_key;
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archived_recordings_session;
-- Which sessions a producer put off for longer than a month: next to none, so that whoever enqueues sees at once that there is none.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_put_off;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_put_off ON archive_queue (run_at)
    WHERE state = 'pending' AND epoch = 0 AND detail ? 'run_at_given';
