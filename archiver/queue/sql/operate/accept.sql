-- Somebody answers for these sessions (:chosen, objects of `id`, `epoch`, `fails`: that it failed is meant, and the `findings` that are
-- meant): they stay as they are. Those that have moved since they were chosen are left alone, and so is what was found wrong since.
WITH chosen AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(:chosen::jsonb) AS g (id bigint, epoch bigint, fails boolean, findings jsonb)
), locked AS MATERIALIZED (
    SELECT q.id, q.state, q.reason, q.accepted_at, c.fails, c.findings
    FROM archive_queue q JOIN chosen c ON c.id = q.id AND c.epoch = q.epoch
    WHERE q.worker_id IS NULL AND (q.state = 'archived' OR q.state = 'failed' AND c.fails = (q.accepted_at IS NULL))
    ORDER BY q.id FOR UPDATE OF q
), found AS MATERIALIZED (
    -- What is meant is still there.
    SELECT l.id, l.state, l.reason, l.accepted_at, meant.findings
    FROM locked l CROSS JOIN LATERAL (
        SELECT jsonb_agg(each) AS findings FROM jsonb_array_elements(l.findings) each
        WHERE EXISTS (SELECT FROM archive_findings f, jsonb_array_elements(f.findings) now WHERE f.queue_id = l.id AND now = each)) meant
    WHERE l.state = 'failed' AND l.fails OR meant.findings IS NOT NULL
), accepted AS (
    UPDATE archive_queue q SET accepted_at = clock_timestamp(), accepted_by = :actor, accept_reason = :reason
    FROM found c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, c.state, c.reason, c.findings, q AS session
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'accepted', a.id, archive_ledger_body(a.session, archive_ledger_files(a.id), :actor)
    FROM accepted a WHERE EXISTS (SELECT FROM archive_ledger_head) ORDER BY a.id
), covered AS (
    -- Of each source its own; what was accepted before stays so, unless a retry undid that.
    UPDATE archive_findings f SET accepted = (
        SELECT coalesce(jsonb_agg(a.finding), '[]') FROM (
            SELECT each FROM jsonb_array_elements(c.findings) each WHERE EXISTS (SELECT FROM jsonb_array_elements(f.findings) now WHERE now = each)
            UNION SELECT old FROM jsonb_array_elements(CASE WHEN c.accepted_at IS NOT NULL THEN f.accepted END) old) a (finding))
    FROM found c WHERE f.queue_id = c.id
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'accepted', epoch, :actor,
           jsonb_strip_nulls(jsonb_build_object('because', :reason::text, 'state', state, 'reason', reason, 'findings', findings))
    FROM accepted
)
SELECT session_id FROM accepted ORDER BY id
