-- Which of the given sessions of a bot are in the queue. $1 bot, $2 session IDs, $3 kinds: arrays of one length
SELECT q.session_id, q.kind
FROM archive_queue q
JOIN unnest($2::text[], $3::text[]) AS g (session_id, kind) ON archive_short(g.session_id) = q.session_id AND g.kind = q.kind
WHERE q.session_id = ANY (ARRAY(SELECT archive_short(i) FROM unnest($2::text[]) i)) AND q.bot = $1
