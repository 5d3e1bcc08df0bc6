-- phase: expand
-- transaction: none
-- min_program: 0.2
-- What finds sessions: by bot, state and reason in the order of their calls, by number, by person. Built-in functions alone: whoever
-- inserts has to be allowed to run what an index calls.

-- No lock_timeout: it would outlast the migration, and these wait for others while nobody who works waits for them.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_archived;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_archived ON archive_queue
    (bot, (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE state = 'archived';
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_not_archived;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_not_archived ON archive_queue
    (bot, state, (left(coalesce(reason, ''), 100)),
     (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE finished_at IS NOT NULL AND state <> 'archived';
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_callers;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_callers ON archive_queue
    ((right(regexp_replace(split_part(call ->> 'caller', '@', 1), '[^0-9]', '', 'g'), 7)),
     (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE call ? 'caller';
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_callees;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_callees ON archive_queue
    ((right(regexp_replace(split_part(call ->> 'callee', '@', 1), '[^0-9]', '', 'g'), 7)),
     (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE call ? 'callee';
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_users;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_users ON archive_queue
    (user_id, (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE user_id IS NOT NULL;
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_agents;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_agents ON archive_queue USING gin
    (jsonb_to_tsvector('simple', coalesce(call -> 'agent', '[]') || coalesce(call -> 'consulted', '[]') || coalesce(call -> 'joined', '[]'), '["string"]'))
    WHERE call ?| '{agent,consulted,joined}';
-- squawk-ignore require-lock-timeout, prefer-robust-stmts
ALTER TABLE archive_queue VALIDATE CONSTRAINT archive_queue_accepted;
