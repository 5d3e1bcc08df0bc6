-- Of each configured bot: its sessions by state, calls and files of the UTC days that the last 24 hours touch, for how long the first of
-- what could be claimed has been due (low priority aside: a backfill takes its time), and when something of it was archived last, as far
-- as the first entries of two indexes tell: what was archived last of all bots, and the bot's own latest call. (No more than the first:
-- of more than it believes there are, Postgres reads and sorts all there are.)
WITH bots AS MATERIALIZED (
    SELECT name, paused_at IS NOT NULL AS paused FROM archive_bots WHERE configured
), counted AS MATERIALIZED (
    SELECT c.bot, jsonb_object_agg(c.state, c.sessions) AS sessions, sum(c.calls)::bigint AS calls, sum(c.files)::bigint AS files
    FROM (SELECT bot, state, sum(sessions)::bigint AS sessions,
                 sum(calls) FILTER (WHERE day >= ((now() - interval '1 day') AT TIME ZONE 'UTC')::date) AS calls,
                 sum(files) FILTER (WHERE day >= ((now() - interval '1 day') AT TIME ZONE 'UTC')::date) AS files
          FROM archive_counts WHERE bot = ANY (ARRAY(SELECT name FROM bots)) GROUP BY bot, state) c
    GROUP BY c.bot
), newest AS MATERIALIZED (
    SELECT q.bot, q.finished_at FROM archive_queue q
    WHERE q.state = 'archived' AND q.finished_at IS NOT NULL AND q.finished_at <= now()
    ORDER BY q.finished_at DESC, q.id DESC LIMIT 1
)
SELECT b.name AS bot, b.paused, coalesce(c.sessions, '{}') AS sessions, c.calls, c.files,
       (SELECT coalesce(greatest(extract(epoch FROM clock_timestamp() - min(first.run_at)), 0), 0)
        FROM unnest('{recording,voicemail}'::text[]) k (kind) CROSS JOIN unnest('{high,normal}'::text[]) p (priority)
        CROSS JOIN LATERAL (
            SELECT q.run_at FROM archive_queue q
            WHERE q.state = 'pending' AND q.bot = b.name AND q.kind = k.kind AND q.priority = p.priority AND q.run_at <= now()
            ORDER BY q.run_at LIMIT 1) first
        WHERE NOT b.paused AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = b.name AND h.kind = k.kind)
       )::double precision AS oldest_ready,
       extract(epoch FROM greatest(
           (SELECT n.finished_at FROM newest n WHERE n.bot = b.name AND isfinite(n.finished_at)),
           (SELECT l.finished_at FROM (
                SELECT q.finished_at FROM archive_queue q
                WHERE q.state = 'archived' AND q.bot = b.name
                ORDER BY (CASE WHEN q.listed_at IS NOT NULL AND q.started_at IS NOT NULL THEN q.started_at ELSE q.archive_date END) DESC,
                         q.id DESC LIMIT 1) l
            WHERE isfinite(l.finished_at) AND l.finished_at <= now())
       ))::double precision AS last_archived
FROM bots b LEFT JOIN counted c ON c.bot = b.name
ORDER BY b.name
