-- How long the platform still keeps the recordings of the earliest call of each bot (arrays of one length) that waits; below zero: they
-- are deleted. Of what waits the first entries of one index alone are read. No row: nothing waits.
SELECT g.bot, extract(epoch FROM min(first.archive_date) + g.retention - now())::double precision AS seconds
FROM unnest(:bots::text[], :retentions::interval[]) AS g (bot, retention)
CROSS JOIN unnest('{recording,voicemail}'::text[]) k (kind) CROSS JOIN unnest('{high,normal,low}'::text[]) p (priority)
CROSS JOIN LATERAL (
    SELECT q.archive_date FROM archive_queue q
    WHERE q.finished_at IS NULL AND q.worker_id IS NULL AND q.bot = g.bot AND q.kind = k.kind AND q.priority = p.priority
    ORDER BY q.archive_date LIMIT 1) first
WHERE isfinite(first.archive_date)
GROUP BY g.bot, g.retention ORDER BY g.bot
