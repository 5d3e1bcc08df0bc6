-- Somebody answers for these sessions (:chosen, objects of `id`, `epoch` and, of an archived one, the `findings` that are meant): they
-- stay as they are. Those that have moved since they were found are left alone, and so is what an account found since.
WITH chosen AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(:chosen::jsonb) AS g (id bigint, epoch bigint, findings jsonb)
), locked AS MATERIALIZED (
    SELECT q.id, q.state, q.reason, q.accepted_at, c.findings
    FROM archive_queue q JOIN chosen c ON c.id = q.id AND c.epoch = q.epoch
    WHERE q.worker_id IS NULL AND CASE WHEN c.findings IS NULL THEN q.state = 'failed' AND q.accepted_at IS NULL ELSE q.state = 'archived' END
    ORDER BY q.id FOR UPDATE OF q
), found AS MATERIALIZED (
    -- Of an archived session what is meant is still there, and what was accepted before stays so.
    SELECT l.id, l.state, l.reason, f.queue_id, meant.findings,
           meant.findings || coalesce((SELECT jsonb_agg(old) FROM jsonb_array_elements(CASE WHEN l.accepted_at IS NOT NULL THEN f.accepted END) old
                                       WHERE NOT EXISTS (SELECT FROM jsonb_array_elements(meant.findings) m WHERE m = old)), '[]') AS accepted
    FROM locked l LEFT JOIN archive_findings f ON f.queue_id = l.id AND f.source = 'account'
    LEFT JOIN LATERAL (
        SELECT jsonb_agg(each) AS findings FROM jsonb_array_elements(l.findings) each
        WHERE EXISTS (SELECT FROM jsonb_array_elements(f.findings) now WHERE now = each)) meant ON true
    WHERE l.findings IS NULL OR meant.findings IS NOT NULL
), accepted AS (
    UPDATE archive_queue q SET accepted_at = clock_timestamp(), accepted_by = :actor, accept_reason = :reason
    FROM found c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, c.state, c.reason, c.findings, q AS session
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'accepted', a.id, archive_ledger_body(a.session, archive_ledger_files(a.id), :actor)
    FROM accepted a WHERE EXISTS (SELECT FROM archive_ledger_head) ORDER BY a.id
), covered AS (
    UPDATE archive_findings f SET accepted = c.accepted FROM found c WHERE f.queue_id = c.queue_id AND f.source = 'account' AND c.state = 'archived'
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'accepted', epoch, :actor,
           jsonb_strip_nulls(jsonb_build_object('because', :reason::text, 'state', state, 'reason', reason, 'findings', findings))
    FROM accepted
)
SELECT session_id FROM accepted ORDER BY id
