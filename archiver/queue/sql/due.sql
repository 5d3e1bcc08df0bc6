-- Which of the given bots have something to claim, and when; least recently served first. Two index look-ups a priority,
-- however many rows sleep. $1 names
SELECT b.name, greatest(due.at - clock_timestamp(), interval '0') AS due_in,
       ARRAY(SELECT h.kind FROM archive_holds h WHERE h.bot = b.name) AS held,
       ARRAY(SELECT h.kind FROM archive_holds h WHERE h.bot = b.name AND h.probe_at <= clock_timestamp()) AS probes
FROM archive_bots b, LATERAL (
    SELECT min(first.run_at) AS at
    FROM unnest('{high,normal,low}'::text[]) p, LATERAL (
        SELECT q.run_at FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = b.name AND q.priority = p ORDER BY q.run_at LIMIT 1) first) due
WHERE b.name = ANY ($1) AND b.paused_at IS NULL AND due.at IS NOT NULL
ORDER BY b.served_at
