-- Which sessions an operator's options choose (null: any), in the order of their rows, a page at a time, from after row :after
-- on. Those that were refused when they were inserted, for their session ID or kind, can never work. :since and :until
-- (exclusive) bound the end, of a waiting session its enqueueing. :call_from and :call_to (exclusive) bound the beginning of the
-- call, as a listing says it, else the date in the recording's path; where the days of bots begin at different moments,
-- :call_bots names them, its first the others, with the bounds of each.
SELECT id, epoch, session_id FROM archive_queue
CROSS JOIN LATERAL (SELECT CASE WHEN listed_at IS NOT NULL AND started_at IS NOT NULL THEN started_at ELSE archive_date END) c (call_at)
CROSS JOIN LATERAL (SELECT coalesce(array_position(:call_bots::text[], bot), 1)) b (place)
WHERE state = ANY (:states::text[]) AND id > :after
  -- Said again for the planner: each of these folds to the condition of an index.
  AND (finished_at IS NOT NULL OR :states::text[] && '{pending,claimed}')
  AND (state = 'pending' OR state = 'claimed' OR NOT :states::text[] <@ '{pending,claimed}')
  AND reason IS DISTINCT FROM 'invalid_session_id' AND kind IN ('recording', 'voicemail')
  AND (:session_ids::text[] IS NULL OR session_id = ANY (:session_ids)) AND bot = coalesce(:bot, bot) AND kind = coalesce(:kind, kind)
  AND (:reasons::text[] IS NULL OR reason = ANY (:reasons) OR detail ->> 'reason' = ANY (:reasons))
  AND (:since::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) >= :since)
  AND (:until::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) < :until)
  AND (:call_from::timestamptz IS NULL OR call_at >= :call_from)
  AND (:call_to::timestamptz IS NULL OR call_at < :call_to)
  AND (:call_bots IS NULL OR (call_at >= coalesce((:call_starts::timestamptz[])[place], '-infinity')
                              AND call_at < coalesce((:call_ends::timestamptz[])[place], 'infinity')))
ORDER BY id LIMIT :page
