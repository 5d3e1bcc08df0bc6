-- Which sessions an operator's options choose (null: any), in the order of their rows, a page at a time, from after row :after
-- on. Those that were refused when they were inserted, for their session ID or kind, can never work. :since and :until
-- (exclusive) bound the end, of a waiting session its enqueueing.
SELECT id, epoch, session_id FROM archive_queue
WHERE state = ANY (:states::text[]) AND id > :after
  -- Said again for the planner: each of these folds to the condition of an index.
  AND (finished_at IS NOT NULL OR :states::text[] && '{pending,claimed}')
  AND (state = 'pending' OR state = 'claimed' OR NOT :states::text[] <@ '{pending,claimed}')
  AND reason IS DISTINCT FROM 'invalid_session_id' AND kind IN ('recording', 'voicemail')
  AND (:session_ids::text[] IS NULL OR session_id = ANY (:session_ids)) AND bot = coalesce(:bot, bot) AND kind = coalesce(:kind, kind)
  AND (:reasons::text[] IS NULL OR reason = ANY (:reasons) OR detail ->> 'reason' = ANY (:reasons))
  AND (:since::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) >= :since)
  AND (:until::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) < :until)
ORDER BY id LIMIT :page
