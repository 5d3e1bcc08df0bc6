-- Recorded files in the order of their ledger keys, a page at a time. $1 bot (null: any), $2 $3 after, $4 page size
SELECT queue_id, store_key, bot, session_id, bytes, sha256 FROM archived_recordings
WHERE bot = coalesce($1, bot) AND (queue_id, store_key) > ($2::bigint, $3::text)
ORDER BY queue_id, store_key LIMIT $4
