-- Remove the history of the :max_sessions sessions that ended longest ago, and longer than :keep ago; go on from there the next
-- time. Nothing is read of those that were here before, nor of those whose time has not come. While another worker is at it:
-- nothing to do.
WITH here AS MATERIALIZED (
    SELECT finished_at, queue_id FROM archive_pruning FOR UPDATE SKIP LOCKED
), ended AS MATERIALIZED (
    SELECT old.id, old.finished_at
    FROM here, unnest('{archived,unavailable,failed,cancelled}'::text[]) AS ended (state), LATERAL (
        SELECT q.id, q.finished_at FROM archive_queue q
        WHERE q.state = ended.state AND (q.finished_at, q.id) > (here.finished_at, here.queue_id)
          AND q.finished_at < now() - :keep::interval
        ORDER BY q.finished_at, q.id LIMIT :max_sessions) old
    ORDER BY old.finished_at, old.id LIMIT :max_sessions
), due AS MATERIALIZED (
    -- Their history goes into their records first.
    SELECT * FROM ended WHERE NOT EXISTS (SELECT FROM archive_ledger_outbox o JOIN ended e ON e.id = o.queue_id)
), removed AS (
    DELETE FROM archive_events WHERE queue_id = ANY (ARRAY(SELECT id FROM due)) RETURNING id
), locked AS MATERIALIZED (
    -- In the order in which all lock them.
    SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM due)) AND enqueued_by IS NOT NULL ORDER BY id FOR NO KEY UPDATE
), forgotten AS (
    -- Who enqueued it belongs to its history.
    UPDATE archive_queue SET enqueued_by = NULL, enqueued_as = NULL WHERE id = ANY (ARRAY(SELECT id FROM locked))
), moved AS (
    UPDATE archive_pruning p SET finished_at = last.finished_at, queue_id = last.id
    FROM (SELECT finished_at, id FROM due ORDER BY finished_at DESC, id DESC LIMIT 1) last
)
SELECT (SELECT count(*) FROM due) AS sessions, (SELECT count(*) FROM removed) AS events
