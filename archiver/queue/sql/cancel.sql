-- Take sessions out of the queue, a batch at a time; a claimed one is taken from its worker by raising the epoch.
-- $1 session IDs (null: all), $2 bot (null: any), $3 kind (null: any), $4 reason, $5 who, $6 after this row, $7 batch
WITH chosen AS MATERIALIZED (
    SELECT id, worker_id, epoch FROM archive_queue
    WHERE state IN ('pending', 'claimed') AND id > $6
      AND ($1::text[] IS NULL OR session_id = ANY ($1)) AND bot = coalesce($2, bot) AND kind = coalesce($3, kind)
    ORDER BY id LIMIT $7 FOR UPDATE
), cancelled AS (
    UPDATE archive_queue q
    SET state = 'cancelled', reason = $4, detail = jsonb_build_object('cancelled_by', $5::text), finished_at = clock_timestamp(),
        worker_id = NULL, epoch = q.epoch + 1
    FROM chosen c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, worker_id, epoch FROM chosen WHERE worker_id IS NOT NULL ON CONFLICT DO NOTHING
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'cancelled', epoch, $5, jsonb_build_object('reason', $4::text) FROM cancelled
)
SELECT id, session_id FROM cancelled ORDER BY id
