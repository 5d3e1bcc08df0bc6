-- Whether sessions of a bot are due. $1 bot
SELECT EXISTS (
    SELECT FROM unnest('{recording,voicemail}'::text[]) AS k (kind), unnest('{high,normal,low}'::text[]) AS p (priority), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = $1 AND q.kind = k.kind AND q.priority = p.priority AND q.run_at <= now() LIMIT 1) due
) AS busy
