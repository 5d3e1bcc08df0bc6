-- Which kinds of the given bots have something to claim, and when; least recently served bot first, its kinds by lot: where the
-- budget has one call at a time, the second one would never get it. Of a held kind one session may be claimed at a time, from
-- probe_at on, and no recheck. Four index look-ups a kind, however many rows sleep.
SELECT b.name, k.kind, CASE WHEN due.at IS NOT NULL THEN greatest(due.at, h.probe_at) - clock_timestamp() END AS due_in,
       recheck.at - clock_timestamp() AS recheck_in
FROM archive_bots b
CROSS JOIN unnest('{recording,voicemail}'::text[]) AS k (kind)
LEFT JOIN archive_holds h ON h.bot = b.name AND h.kind = k.kind
CROSS JOIN LATERAL (
    SELECT min(first.run_at) AS at
    FROM unnest('{high,normal,low}'::text[]) p, LATERAL (
        SELECT q.run_at FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.name AND q.kind = k.kind AND q.priority = p ORDER BY q.run_at LIMIT 1) first) due
LEFT JOIN LATERAL (
    SELECT q.recheck_at AS at FROM archive_queue q
    WHERE q.bot = b.name AND q.kind = k.kind AND q.recheck_at IS NOT NULL AND q.worker_id IS NULL
    ORDER BY q.recheck_at LIMIT 1) recheck ON h.bot IS NULL
WHERE b.name = ANY (:bots) AND b.paused_at IS NULL AND (due.at IS NOT NULL OR recheck.at IS NOT NULL)
ORDER BY b.served_at, b.name, random()
