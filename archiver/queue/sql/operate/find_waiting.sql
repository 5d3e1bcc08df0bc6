-- Which waiting and claimed sessions an operator's options choose: as operate/find_sessions says, by the indexes of these alone. Nothing
-- is read of what has ended, however much that is.
WITH waiting AS MATERIALIZED (
    SELECT id, epoch, session_id, bot, kind, state, reason, detail ->> 'reason' AS inner_reason, enqueued_at,
           CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END AS call_at
    FROM archive_queue WHERE :session_ids::text[] IS NULL AND finished_at IS NULL AND worker_id IS NULL
    UNION ALL
    SELECT id, epoch, session_id, bot, kind, state, reason, detail ->> 'reason', enqueued_at,
           CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END
    FROM archive_queue WHERE :session_ids IS NULL AND worker_id IS NOT NULL AND finished_at IS NULL
    UNION ALL
    SELECT id, epoch, session_id, bot, kind, state, reason, detail ->> 'reason', enqueued_at,
           CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END
    FROM archive_queue WHERE session_id = ANY (:session_ids)
)
SELECT id, epoch, session_id FROM waiting
CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], bot), 1)) b (place)
WHERE state = ANY (:states::text[]) AND state IN ('pending', 'claimed') AND id > :after AND kind IN ('recording', 'voicemail')
  AND bot = coalesce(:bot, bot) AND kind = coalesce(:kind, kind)
  AND (:reasons::text[] IS NULL OR reason = ANY (:reasons) OR inner_reason = ANY (:reasons))
  AND (:since::timestamptz IS NULL OR enqueued_at >= :since)
  AND (:until::timestamptz IS NULL OR enqueued_at < :until)
  AND (:call_from::timestamptz IS NULL OR call_at >= :call_from)
  AND (:call_to::timestamptz IS NULL OR call_at < :call_to)
  AND (:call_bots IS NULL OR (call_at >= coalesce((:call_starts::timestamptz[])[place], '-infinity')
                              AND call_at < coalesce((:call_ends::timestamptz[])[place], 'infinity')))
ORDER BY id LIMIT :page
