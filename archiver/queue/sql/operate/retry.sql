-- Bring ended sessions back with fresh counters; what is stored stays, and nobody answers any more for how it was. One that has moved since it was found (another epoch) is
-- left alone, and so is one that is being asked for again already.
WITH found AS MATERIALIZED (
    SELECT q.id, q.state, q.reason FROM archive_queue q JOIN unnest(:ids::bigint[], :epochs::bigint[]) AS c (id, epoch) USING (id, epoch)
    WHERE q.state NOT IN ('pending', 'claimed') AND q.worker_id IS NULL
    ORDER BY q.id FOR UPDATE OF q
), revived AS (
    UPDATE archive_queue q
    SET state = 'pending', reason = NULL, detail = '{}', finished_at = NULL, run_at = clock_timestamp(), failures = 0, checks = 0,
        crashes = 0, accepted_at = NULL, accepted_by = NULL, accept_reason = NULL, first_asked_at = NULL, recheck_at = NULL, rechecks = 0, recheck_tries = 0,
        archived_before = q.archived_before OR c.state = 'archived', epoch = q.epoch + 1
    FROM found c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, c.state, c.reason, q AS session
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'retried', epoch, :actor, jsonb_strip_nulls(jsonb_build_object('was', state, 'reason', reason)) FROM revived
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'reopened', v.id, archive_ledger_body(v.session, archive_ledger_files(v.id), :actor)
    FROM revived v WHERE EXISTS (SELECT FROM archive_ledger_head) ORDER BY v.id
), woken AS (
    SELECT pg_notify('archive_queue', '') WHERE EXISTS (SELECT FROM revived) AND pg_notification_queue_usage() < 0.5
)
SELECT r.session_id FROM revived r LEFT JOIN woken ON true ORDER BY r.id
