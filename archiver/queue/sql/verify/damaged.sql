-- Sessions of which verify found files wrong that nobody mended: `open` ones, and those all of whose findings somebody accepted; of what is
-- chosen as in verify/page. Reads what was found, and looks up its sessions one by one, never all sessions.
SELECT count(*) FILTER (WHERE NOT w.all_accepted) AS open, count(*) FILTER (WHERE w.all_accepted) AS accepted
FROM archive_findings f
CROSS JOIN LATERAL (
    SELECT f.accepted IS NOT NULL AND EXISTS (SELECT FROM archive_sessions s WHERE s.queue_id = f.queue_id AND s.accepted_at IS NOT NULL)
           AND NOT EXISTS (SELECT FROM jsonb_array_elements(f.findings) e
                           WHERE (:prefix::text IS NULL OR starts_with(e ->> 'store_key', :prefix))
                             AND NOT EXISTS (SELECT FROM jsonb_array_elements(f.accepted) a WHERE a = e)) AS all_accepted) w
WHERE f.source = 'verify'
  AND (:prefix IS NULL OR EXISTS (SELECT FROM jsonb_array_elements(f.findings) e WHERE starts_with(e ->> 'store_key', :prefix)))
  AND (:bot::text IS NULL AND :kind::text IS NULL AND NOT :called::boolean OR EXISTS (
      SELECT FROM archive_sessions s
      CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], s.bot), 1)) b (place)
      WHERE s.queue_id = f.queue_id AND s.bot = coalesce(:bot, s.bot) AND s.kind = coalesce(:kind, s.kind)
        AND (NOT :called OR s.called_at >= coalesce(:call_from::timestamptz, '-infinity') AND s.called_at < coalesce(:call_to::timestamptz, 'infinity')
             AND (:call_bots IS NULL OR s.called_at >= coalesce((:call_starts::timestamptz[])[b.place], '-infinity')
                                        AND s.called_at < coalesce((:call_ends::timestamptz[])[b.place], 'infinity')))))
