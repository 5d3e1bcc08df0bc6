-- Take sessions out of the queue that are still in one of :states; a claimed one is taken from its worker by raising the epoch.
-- One that was brought back from archived is archived again: what is stored of it is all that was known of.
WITH found AS MATERIALIZED (
    SELECT id, state, worker_id, epoch, claimed_at, rechecks, failures, checks, crashes FROM archive_queue
    WHERE id = ANY (:ids::bigint[]) AND state = ANY (:states::text[]) AND state IN ('pending', 'claimed')
    ORDER BY id FOR UPDATE
), cancelled AS (
    UPDATE archive_queue q
    SET state = CASE WHEN q.archived_before THEN 'archived' ELSE 'cancelled' END,
        reason = CASE WHEN q.archived_before THEN 'kept' ELSE :reason END,
        detail = jsonb_build_object('cancelled_by', :actor::text)
                 || CASE WHEN q.archived_before THEN jsonb_build_object('reason', :reason::text) ELSE '{}' END,
        finished_at = clock_timestamp(), archived_before = false, worker_id = NULL, epoch = q.epoch + 1
    FROM found c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, q.state, q AS session
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'settled', c.id, archive_ledger_body(c.session, archive_ledger_files(c.id), :actor)
    FROM cancelled c WHERE EXISTS (SELECT FROM archive_ledger_head) ORDER BY c.id
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, worker_id, epoch FROM found WHERE worker_id IS NOT NULL ON CONFLICT (queue_id, epoch) DO NOTHING
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT h.id, 'claimed', h.epoch, 'worker ' || h.worker_id, h.claimed_at,
           CASE WHEN h.state = 'unavailable' THEN jsonb_build_object('recheck', h.rechecks + 1)
                WHEN h.failures + h.checks + h.crashes = 0 THEN '{}'
                ELSE jsonb_build_object('failures', h.failures, 'checks', h.checks, 'crashes', h.crashes) END
    FROM found h
    WHERE h.worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = h.id AND c.epoch = h.epoch AND c.event = 'claimed')
    UNION ALL
    SELECT id, 'cancelled', epoch, :actor, clock_timestamp(),
           jsonb_strip_nulls(jsonb_build_object('reason', :reason::text, 'state', nullif(state, 'cancelled'))) FROM cancelled
)
SELECT session_id FROM cancelled ORDER BY id
