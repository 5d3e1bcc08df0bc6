-- Put back what a claim took whose answer never arrived: nobody works on it, and its lease is renewed all the same. :working_on
-- has the rows that the worker does work on. A recheck stays unavailable, and due.
WITH forgotten AS MATERIALIZED (
    SELECT id FROM archive_queue
    WHERE worker_id = :worker_id AND id <> ALL (:working_on::bigint[])
    ORDER BY id FOR UPDATE
), put_back AS (
    UPDATE archive_queue
    SET state = CASE state WHEN 'claimed' THEN 'pending' ELSE state END,
        reason = CASE state WHEN 'claimed' THEN 'claim_unanswered' ELSE reason END,
        worker_id = NULL, epoch = epoch + 1
    WHERE id = ANY (ARRAY(SELECT id FROM forgotten))
    RETURNING id, epoch
)
INSERT INTO archive_events (queue_id, event, epoch, actor, data)
SELECT id, 'handed_back', epoch, 'worker ' || :worker_id::bigint, '{"reason": "claim_unanswered"}' FROM put_back
