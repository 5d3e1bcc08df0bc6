-- These sessions, the latest calls first, without those in :except_ids and :except_kinds (of one length), which an account names already.
SELECT o.bot, o.session_id, o.kind, o.state, o.reason, o.called_at
FROM (
    SELECT s.bot, s.session_id, s.kind, s.state, s.reason, s.called_at FROM archive_sessions s
    WHERE s.state = 'failed' AND s.finished_at IS NOT NULL AND s.accepted_at IS NULL AND s.bot = ANY (:bots::text[]) AND s.priority <> 'low'
    UNION ALL
    SELECT s.bot, s.session_id, s.kind, s.state, f.findings -> 0 ->> 'mismatch', s.called_at
    FROM archive_findings f JOIN archive_sessions s ON s.queue_id = f.queue_id
    WHERE f.source = 'account' AND s.state = 'archived' AND s.bot = ANY (:bots) AND s.priority <> 'low'
      AND NOT (s.accepted_at IS NOT NULL AND f.findings <@ f.accepted)
) o
WHERE (o.bot, o.session_id, o.kind) NOT IN (
    SELECT g.bot, g.session_id, g.kind FROM unnest(:except_bots::text[], :except_ids::text[], :except_kinds::text[]) AS g (bot, session_id, kind))
ORDER BY o.called_at DESC, o.session_id LIMIT :max_rows
