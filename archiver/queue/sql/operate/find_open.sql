-- Which sessions can be accepted, of those that an operator's options choose (see operate/find_sessions): failed ones, and archived ones
-- that an account found wrong, unless all that is known of it is accepted already. :reasons are also those of its mismatches.
SELECT q.id, q.session_id
FROM archive_searchable s JOIN archive_queue q ON q.id = s.queue_id LEFT JOIN archive_findings f ON f.queue_id = q.id AND f.source = 'account'
CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], q.bot), 1)) b (place)
WHERE q.id > :after AND q.id = ANY (ARRAY(SELECT id FROM archive_queue WHERE state = 'failed' AND finished_at IS NOT NULL AND accepted_at IS NULL
                                          UNION ALL SELECT queue_id FROM archive_findings WHERE source = 'account'))
  AND (q.state = 'failed' AND q.accepted_at IS NULL OR q.state = 'archived' AND f.findings IS NOT NULL
       AND NOT (q.accepted_at IS NOT NULL AND f.findings <@ f.accepted) IS TRUE)
  AND (:session_ids::text[] IS NULL OR q.session_id = ANY (:session_ids)) AND q.bot = coalesce(:bot, q.bot) AND q.kind = coalesce(:kind, q.kind)
  AND (:reasons::text[] IS NULL OR q.reason = ANY (:reasons) OR q.detail ->> 'reason' = ANY (:reasons)
       OR q.state = 'archived' AND jsonb_path_query_array(f.findings, '$[*].mismatch') ?| :reasons)
  AND (:since::timestamptz IS NULL OR q.finished_at >= :since) AND (:until::timestamptz IS NULL OR q.finished_at < :until)
  AND (:call_from::timestamptz IS NULL OR s.called_at >= :call_from)
  AND (:call_to::timestamptz IS NULL OR s.called_at < :call_to)
  AND (:call_bots IS NULL OR (s.called_at >= coalesce((:call_starts::timestamptz[])[place], '-infinity')
                              AND s.called_at < coalesce((:call_ends::timestamptz[])[place], 'infinity')))
ORDER BY q.id LIMIT :page
