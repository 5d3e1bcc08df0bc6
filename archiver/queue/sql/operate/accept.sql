-- Somebody answers for these sessions: they stay as they are. Those that have moved since they were found are left alone.
WITH found AS MATERIALIZED (
    SELECT q.id, q.state, q.reason FROM archive_queue q
    WHERE q.id = ANY (:ids::bigint[]) AND q.worker_id IS NULL
      AND (q.state = 'failed' OR q.state = 'archived' AND EXISTS (SELECT FROM archive_findings f WHERE f.queue_id = q.id AND f.source = 'account'))
    ORDER BY q.id FOR UPDATE OF q
), accepted AS (
    UPDATE archive_queue q SET accepted_at = clock_timestamp(), accepted_by = :actor, accept_reason = :reason
    FROM found c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, c.state, c.reason
), covered AS (
    UPDATE archive_findings f SET accepted = f.findings FROM found c WHERE f.queue_id = c.id AND f.source = 'account' AND c.state = 'archived'
    RETURNING f.queue_id, f.findings
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT a.id, 'accepted', a.epoch, :actor,
           jsonb_strip_nulls(jsonb_build_object('because', :reason::text, 'state', a.state, 'reason', a.reason, 'findings', c.findings))
    FROM accepted a LEFT JOIN covered c ON c.queue_id = a.id
)
SELECT session_id FROM accepted ORDER BY id
