-- Which sessions can be accepted, of those that an operator's options choose (see operate/find_sessions): failed ones, and those that an
-- account (archived ones) or verify found wrong, unless all that is known of it is accepted already. :reasons are also those of what was
-- found. `fails`: that it failed is meant; `findings`: what is meant of what was found wrong with it.
WITH open_ids AS MATERIALIZED (
    SELECT id, bool_or(finding IS NULL) AS fails, coalesce(jsonb_agg(finding) FILTER (WHERE finding IS NOT NULL), '[]') AS findings
    FROM (
        SELECT id, NULL::jsonb AS finding FROM archive_queue
        WHERE state = 'failed' AND finished_at IS NOT NULL AND accepted_at IS NULL
          AND (:reasons::text[] IS NULL OR reason = ANY (:reasons) OR detail ->> 'reason' = ANY (:reasons))
        UNION ALL
        SELECT q.id, e.finding
        FROM archive_findings f JOIN archive_queue q ON q.id = f.queue_id CROSS JOIN LATERAL jsonb_array_elements(f.findings) AS e (finding)
        WHERE (q.state = 'archived' OR q.state = 'failed' AND f.source = 'verify')
          AND NOT (q.accepted_at IS NOT NULL AND EXISTS (SELECT FROM jsonb_array_elements(f.accepted) a WHERE a = e.finding))
          AND (:reasons IS NULL
               OR coalesce(e.finding ->> 'mismatch', CASE e.finding ->> 'verdict' WHEN 'missing' THEN 'file_missing'
                                                     WHEN 'unreadable' THEN 'file_unreadable' ELSE e.finding ->> 'verdict' END) = ANY (:reasons))
    ) each
    GROUP BY id
)
SELECT q.id, q.epoch, q.session_id, o.fails, o.findings
FROM open_ids o JOIN archive_queue q ON q.id = o.id JOIN archive_searchable s ON s.queue_id = q.id
CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], q.bot), 1)) b (place)
WHERE (o.fails OR q.state = 'archived' OR q.accepted_at IS NOT NULL)  -- whose failure is not meant is not accepted for its files
  AND (:session_ids::text[] IS NULL OR q.session_id = ANY (:session_ids)) AND q.bot = coalesce(:bot, q.bot) AND q.kind = coalesce(:kind, q.kind)
  AND (:since::timestamptz IS NULL OR q.finished_at >= :since) AND (:until::timestamptz IS NULL OR q.finished_at < :until)
  AND (:call_from::timestamptz IS NULL OR s.called_at >= :call_from)
  AND (:call_to::timestamptz IS NULL OR s.called_at < :call_to)
  AND (:call_bots IS NULL OR (s.called_at >= coalesce((:call_starts::timestamptz[])[place], '-infinity')
                              AND s.called_at < coalesce((:call_ends::timestamptz[])[place], 'infinity')))
ORDER BY q.id
