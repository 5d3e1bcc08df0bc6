-- Which of the given sessions of a bot (arrays of one length) are in the queue.
SELECT q.session_id, q.kind
FROM archive_queue q
JOIN unnest(:session_ids::text[], :kinds::text[]) AS g (session_id, kind) ON archive_short(g.session_id) = q.session_id AND g.kind = q.kind
WHERE q.session_id = ANY (ARRAY(SELECT archive_short(i) FROM unnest(:session_ids::text[]) i)) AND q.bot = :bot
