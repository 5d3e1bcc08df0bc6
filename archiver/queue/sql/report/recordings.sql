-- Recorded files in the order of their ledger keys, a page at a time; :bot null: of any.
SELECT queue_id, store_key, bot, session_id, bytes, sha256 FROM archived_recordings
WHERE bot = coalesce(:bot, bot) AND (queue_id, store_key) > (:after_id::bigint, :after_key::text)
ORDER BY queue_id, store_key LIMIT :page
