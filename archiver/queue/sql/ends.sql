-- How every session stands, shortest.
SELECT session_id, state, reason FROM archive_queue ORDER BY id
