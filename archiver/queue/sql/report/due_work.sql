-- Whether sessions of these bots are due that a worker could claim now.
SELECT EXISTS (
    SELECT FROM archive_bots b, unnest('{recording,voicemail}'::text[]) AS k (kind),
         unnest('{high,normal,low}'::text[]) AS p (priority), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.name AND q.kind = k.kind AND q.priority = p.priority AND q.run_at <= now() LIMIT 1) due
    WHERE b.name = ANY (:bots::text[]) AND b.paused_at IS NULL
      AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = b.name AND h.kind = k.kind)
) AND EXISTS (SELECT FROM archive_workers WHERE expires_at > clock_timestamp()) AS has_due_work
