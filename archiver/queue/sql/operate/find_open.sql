-- Which sessions can be accepted, of those that an operator's options choose (see operate/find_sessions): failed ones, and archived ones
-- that an account found wrong, unless all that is known of it is accepted already. :reasons are also those of its mismatches.
-- `findings`: those that are chosen; null for a failed session.
WITH open_ids AS MATERIALIZED (
    SELECT id, NULL::jsonb AS findings FROM archive_queue WHERE state = 'failed' AND finished_at IS NOT NULL AND accepted_at IS NULL
    UNION ALL
    SELECT m.queue_id, coalesce((SELECT jsonb_agg(f) FROM jsonb_array_elements(m.findings) f
                                 WHERE :reasons::text[] IS NULL OR f ->> 'mismatch' = ANY (:reasons)), '[]')
    FROM archive_mismatches m WHERE NOT m.all_accepted
)
SELECT q.id, q.epoch, q.session_id, o.findings
FROM open_ids o JOIN archive_queue q ON q.id = o.id JOIN archive_searchable s ON s.queue_id = q.id
CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], q.bot), 1)) b (place)
WHERE (o.findings <> '[]' OR o.findings IS NULL AND (:reasons IS NULL OR q.reason = ANY (:reasons) OR q.detail ->> 'reason' = ANY (:reasons)))
  AND (:session_ids::text[] IS NULL OR q.session_id = ANY (:session_ids)) AND q.bot = coalesce(:bot, q.bot) AND q.kind = coalesce(:kind, q.kind)
  AND (:since::timestamptz IS NULL OR q.finished_at >= :since) AND (:until::timestamptz IS NULL OR q.finished_at < :until)
  AND (:call_from::timestamptz IS NULL OR s.called_at >= :call_from)
  AND (:call_to::timestamptz IS NULL OR s.called_at < :call_to)
  AND (:call_bots IS NULL OR (s.called_at >= coalesce((:call_starts::timestamptz[])[place], '-infinity')
                              AND s.called_at < coalesce((:call_ends::timestamptz[])[place], 'infinity')))
ORDER BY q.id
