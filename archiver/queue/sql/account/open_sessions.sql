-- These sessions (see open_counts), the latest calls first.
SELECT o.bot, o.session_id, o.kind, o.state, o.reason, o.called_at
FROM (
    SELECT s.bot, s.session_id, s.kind, s.state, s.reason, s.called_at FROM archive_sessions s
    WHERE s.state = 'failed' AND s.finished_at IS NOT NULL AND s.accepted_at IS NULL AND s.bot = ANY (:bots::text[]) AND s.priority <> 'low'
      AND NOT (s.claimed_at IS NULL AND s.reason IN ('invalid_session_id', 'kind_not_supported'))
    UNION ALL
    SELECT s.bot, s.session_id, s.kind, s.state, m.findings -> 0 ->> 'mismatch', s.called_at
    FROM archive_mismatches m JOIN archive_sessions s ON s.queue_id = m.queue_id
    WHERE NOT m.all_accepted AND m.bot = ANY (:bots) AND m.priority <> 'low'
) o
WHERE o.called_at BETWEEN '0001-01-02Z' AND '9998-01-01Z' AND (o.bot, o.session_id, o.kind) NOT IN (
    SELECT g.bot, g.session_id, g.kind FROM unnest(:except_bots::text[], :except_ids::text[], :except_kinds::text[]) AS g (bot, session_id, kind))
ORDER BY o.called_at DESC, o.session_id LIMIT :max_rows
