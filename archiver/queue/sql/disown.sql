-- Put back what a claim took whose answer never arrived: nobody works on it, and its lease is renewed all the same.
-- $1 worker, $2 the rows that it does work on
WITH forgotten AS MATERIALIZED (
    SELECT id FROM archive_queue
    WHERE state = 'claimed' AND worker_id = $1 AND id <> ALL ($2::bigint[])
    ORDER BY id FOR UPDATE
), put_back AS (
    UPDATE archive_queue SET state = 'pending', reason = 'claim_unanswered', worker_id = NULL, epoch = epoch + 1
    WHERE id = ANY (ARRAY(SELECT id FROM forgotten))
    RETURNING id, epoch, reason
)
INSERT INTO archive_events (queue_id, event, epoch, actor, data)
SELECT id, 'handed_back', epoch, 'worker ' || $1::bigint, jsonb_build_object('reason', reason) FROM put_back
