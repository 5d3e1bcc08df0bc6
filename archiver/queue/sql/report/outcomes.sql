-- The state of every session.
SELECT session_id, state, reason FROM archive_queue ORDER BY id
