-- Which of these session IDs are known, each with its priority if it waits.
SELECT bot, session_id, kind, CASE WHEN state = 'pending' THEN priority END AS waits_as
FROM archive_queue WHERE session_id = ANY (:session_ids::text[])
