-- Which sessions an operator's options choose, in the order of their rows, a page at a time. Those that were refused when
-- they were inserted, for their session ID or kind, can never work. The time is that of the end, of a waiting one that of
-- its enqueueing.
-- $1 session IDs (null: all), $2 bot (null: any), $3 kind (null: any), $4 states, $5 reasons (null: any), $6 since, $7 before,
-- $8 after this row, $9 page
SELECT id, epoch, session_id FROM archive_queue
WHERE state = ANY ($4::text[]) AND id > $8
  -- Said again for the planner: each of these folds to the condition of an index.
  AND (finished_at IS NOT NULL OR $4::text[] && '{pending,claimed}')
  AND (state = 'pending' OR state = 'claimed' OR NOT $4::text[] <@ '{pending,claimed}')
  AND reason IS DISTINCT FROM 'invalid_session_id' AND kind IN ('recording', 'voicemail')
  AND ($1::text[] IS NULL OR session_id = ANY ($1)) AND bot = coalesce($2, bot) AND kind = coalesce($3, kind)
  AND ($5::text[] IS NULL OR reason = ANY ($5) OR detail ->> 'reason' = ANY ($5))
  AND ($6::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) >= $6)
  AND ($7::timestamptz IS NULL OR coalesce(finished_at, enqueued_at) < $7)
ORDER BY id LIMIT $9
