-- Whether sessions of a bot are due that somebody could do now. $1 bot
SELECT EXISTS (
    SELECT FROM unnest('{recording,voicemail}'::text[]) AS k (kind), unnest('{high,normal,low}'::text[]) AS p (priority), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = $1 AND q.kind = k.kind AND q.priority = p.priority AND q.run_at <= now() LIMIT 1) due
    WHERE NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = $1 AND h.kind = k.kind)
) AND EXISTS (SELECT FROM archive_workers WHERE expires_at > clock_timestamp())
  AND NOT EXISTS (SELECT FROM archive_bots WHERE name = $1 AND paused_at IS NOT NULL) AS busy
