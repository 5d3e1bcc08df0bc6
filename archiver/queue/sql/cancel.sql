-- Take sessions out of the queue; a claimed one is taken from its worker by raising the epoch. One that was brought back from archived
-- is archived again: what is stored of it is all that was known of.
-- $1 rows, $2 states that they may be in by now, $3 reason, $4 who
WITH chosen AS MATERIALIZED (
    SELECT id, worker_id, epoch FROM archive_queue
    WHERE id = ANY ($1::bigint[]) AND state = ANY ($2::text[]) AND state IN ('pending', 'claimed')
    ORDER BY id FOR UPDATE
), cancelled AS (
    UPDATE archive_queue q
    SET state = CASE WHEN q.archived_before THEN 'archived' ELSE 'cancelled' END,
        reason = CASE WHEN q.archived_before THEN 'kept' ELSE $3 END,
        detail = jsonb_build_object('cancelled_by', $4::text)
                 || CASE WHEN q.archived_before THEN jsonb_build_object('reason', $3::text) ELSE '{}' END,
        finished_at = clock_timestamp(), archived_before = false, worker_id = NULL, epoch = q.epoch + 1
    FROM chosen c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, q.state
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, worker_id, epoch FROM chosen WHERE worker_id IS NOT NULL ON CONFLICT (queue_id, epoch) DO NOTHING
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'cancelled', epoch, $4,
           jsonb_strip_nulls(jsonb_build_object('reason', $3::text, 'state', nullif(state, 'cancelled'))) FROM cancelled
)
SELECT session_id FROM cancelled ORDER BY id
