-- phase: expand
-- transaction: none
-- min_program: 0.2
-- What finds the recordings that were not read again for longest. A recording that was archived was read then.

-- No lock_timeout: it would outlast the migration, and these wait for others while nobody who works waits for them.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archived_recordings_verified;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archived_recordings_verified ON archived_recordings
    ((coalesce(verified_at, archived_at)), queue_id);
