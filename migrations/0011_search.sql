-- phase: expand
-- transaction: none
-- min_program: 0.2
-- What was there before is counted, while all go on: whatever they change counts itself. Then what finds sessions: by bot, state and reason in the order of their calls, by number, by person. Built-in functions alone: whoever
-- inserts has to be allowed to run what an index calls.

INSERT INTO archive_rollup_changes (bot, kind, priority, day, state, reason, sessions, accepted, rechecks, calls, files, bytes, milliseconds)
SELECT bot, kind, priority, day, state, reason, sum(sessions), sum(accepted), sum(rechecks), sum(calls), sum(files), sum(bytes), sum(milliseconds)
FROM (SELECT q.bot, q.kind, q.priority, q.day, q.state, q.reason, count(*) AS sessions, sum(q.accepted) AS accepted, sum(q.rechecks) AS rechecks,
             sum(q.calls) AS calls, coalesce(sum(f.files), 0) AS files, coalesce(sum(f.bytes), 0) AS bytes,
             coalesce(sum(f.milliseconds), 0) AS milliseconds
      FROM archive_countable q
      LEFT JOIN (SELECT queue_id, count(*) AS files, sum(bytes) AS bytes, sum(coalesce(round(seconds * 1000), 0)) AS milliseconds
                 FROM archived_recordings GROUP BY queue_id) f ON f.queue_id = q.id
      GROUP BY 1, 2, 3, 4, 5, 6
      UNION ALL
      SELECT bot, kind, priority, day, state, reason, -sessions, -accepted, -rechecks, -calls, -files, -bytes, -milliseconds
      FROM (SELECT * FROM archive_rollup UNION ALL SELECT * FROM archive_rollup_changes) counted) both_counts
GROUP BY 1, 2, 3, 4, 5, 6
HAVING sum(sessions) <> 0 OR sum(accepted) <> 0 OR sum(rechecks) <> 0 OR sum(calls) <> 0 OR sum(files) <> 0 OR sum(bytes) <> 0
       OR sum(milliseconds) <> 0;

-- No lock_timeout: it would outlast the migration, and these wait for others while nobody who works waits for them.
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_archived;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_archived ON archive_queue
    (bot, (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE state = 'archived';
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_reasons;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_reasons ON archive_queue
    (bot, state, (left(coalesce(reason, ''), 100)),
     (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE finished_at IS NOT NULL AND (state <> 'archived' OR reason IS NOT NULL);
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
    (left(user_id, 200), (CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END), id)
    WHERE user_id IS NOT NULL;
-- squawk-ignore require-lock-timeout
DROP INDEX CONCURRENTLY IF EXISTS archive_queue_agents;
-- squawk-ignore require-lock-timeout
CREATE INDEX CONCURRENTLY IF NOT EXISTS archive_queue_agents ON archive_queue USING gin
    (jsonb_to_tsvector('simple', coalesce(call -> 'agent', '[]') || coalesce(call -> 'consulted', '[]') || coalesce(call -> 'joined', '[]'), '["string"]'))
    WHERE call ?| '{agent,consulted,joined}';
-- squawk-ignore require-lock-timeout, prefer-robust-stmts
ALTER TABLE archive_queue VALIDATE CONSTRAINT archive_queue_accepted;
