-- Put back what a claim took whose answer never arrived: nobody works on it, and its lease is renewed all the same. :working_on
-- has the rows that the worker does work on. A recheck stays unavailable, and due.
WITH forgotten AS MATERIALIZED (
    SELECT id, state, worker_id, epoch, claimed_at, rechecks, failures, checks, crashes FROM archive_queue
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
INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
(
    SELECT h.id, 'claimed', h.epoch, 'worker ' || h.worker_id, h.claimed_at,
           CASE WHEN h.state = 'unavailable' THEN jsonb_build_object('recheck', h.rechecks + 1)
                WHEN h.failures + h.checks + h.crashes = 0 THEN '{}'
                ELSE jsonb_build_object('failures', h.failures, 'checks', h.checks, 'crashes', h.crashes) END
    FROM forgotten h
    WHERE h.worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = h.id AND c.epoch = h.epoch AND c.event = 'claimed')
    ORDER BY h.id
)
UNION ALL
SELECT id, 'handed_back', epoch, 'worker ' || :worker_id::bigint, clock_timestamp(), '{"reason": "claim_unanswered"}' FROM put_back
