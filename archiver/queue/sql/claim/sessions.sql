-- Claim up to :slots due sessions of one kind of a bot, as many as its budget allows; one call is drawn for each. While two
-- priorities wait, the higher gets three turns of four. A session whose call ended too recently is put off, without a call. Of a
-- held kind one session, if it is time to try again; whoever gets it has the turn, and the next turn comes after :probe_every.
-- Within a priority by run_at. Where the platform deletes recordings after a time (:retention; null: unknown), by what is nearest
-- to that; what is past it, and so probably gone, comes behind all that is still there.
WITH hold AS MATERIALIZED (
    SELECT probe_at <= now() AS open FROM archive_holds WHERE bot = :bot AND kind = :kind
), bot AS MATERIALIZED (
    -- A turn at random: counted, two claims at once would take the same one, and two workers in step always the higher's.
    SELECT floor(random() * 16)::integer AS turn, b.first_ask, CASE WHEN EXISTS (SELECT FROM hold WHERE NOT open) THEN 0
                                     WHEN EXISTS (SELECT FROM hold) THEN least(:slots::integer, 1)
                                     ELSE :slots END AS slots
    FROM archive_workers w, archive_bots b
    WHERE w.id = :worker_id AND w.expires_at > clock_timestamp() AND b.name = :bot AND b.paused_at IS NULL
), waiting AS MATERIALIZED (
    -- LIMIT 1: the planner can't make one scan of all that waits out of three look-ups.
    SELECT array_agg(p.priority ORDER BY p.rank) AS priorities
    FROM unnest('{high,normal,low}'::text[]) WITH ORDINALITY AS p (priority, rank), LATERAL (
        SELECT FROM archive_queue q
        WHERE q.state = 'pending' AND q.bot = :bot AND q.kind = :kind AND q.priority = p.priority AND q.run_at <= now() LIMIT 1) first
), turns AS MATERIALIZED (
    SELECT t, priorities[CASE WHEN cardinality(priorities) = 1 OR t % 4 > 0 THEN 1
                              WHEN cardinality(priorities) = 2 OR t / 4 % 4 > 0 THEN 2
                              ELSE 3 END] AS priority
    FROM waiting, bot, generate_series(bot.turn + 1, bot.turn + bot.slots) t
), share AS MATERIALIZED (
    -- The turns of each priority, as arrays: a join of place with place would be a nested loop.
    SELECT coalesce(array_agg(t ORDER BY t) FILTER (WHERE priority = 'high'), '{}') AS high,
           coalesce(array_agg(t ORDER BY t) FILTER (WHERE priority = 'normal'), '{}') AS normal,
           coalesce(array_agg(t ORDER BY t) FILTER (WHERE priority = 'low'), '{}') AS low,
           -- One of these is none. Said here, where no plan knows it beforehand: one made for each claim would cost more than the claim.
           CASE WHEN :retention::interval IS NULL THEN :slots ELSE 0 END AS by_run_at,
           CASE WHEN :retention IS NULL THEN 0 ELSE :slots END AS by_age
    FROM turns
), ages AS MATERIALIZED (
    SELECT since, until, gone
    FROM (VALUES (now() - :retention::interval, 'infinity'::timestamptz, false),
                 ('-infinity', now() - :retention::interval, true)) a (since, until, gone)
    ORDER BY gone
), high AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM (
            SELECT id, priority, run_at AS at, false AS gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE state = 'pending' AND bot = :bot AND kind = :kind AND priority = 'high' AND run_at <= now()
            ORDER BY run_at LIMIT (SELECT by_run_at FROM share) FOR UPDATE SKIP LOCKED) by_run_at
        UNION ALL
        SELECT by_age.* FROM ages, LATERAL (
            SELECT id, priority, archive_date AS at, ages.gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE finished_at IS NULL AND worker_id IS NULL AND bot = :bot AND kind = :kind AND priority = 'high' AND run_at <= now()
              AND archive_date >= ages.since AND archive_date < ages.until
            ORDER BY archive_date LIMIT (SELECT by_age FROM share) FOR UPDATE SKIP LOCKED) by_age
    ) first LIMIT (SELECT cardinality(high) FROM share)
), normal AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM (
            SELECT id, priority, run_at AS at, false AS gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE state = 'pending' AND bot = :bot AND kind = :kind AND priority = 'normal' AND run_at <= now()
            ORDER BY run_at LIMIT (SELECT by_run_at FROM share) FOR UPDATE SKIP LOCKED) by_run_at
        UNION ALL
        SELECT by_age.* FROM ages, LATERAL (
            SELECT id, priority, archive_date AS at, ages.gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE finished_at IS NULL AND worker_id IS NULL AND bot = :bot AND kind = :kind AND priority = 'normal' AND run_at <= now()
              AND archive_date >= ages.since AND archive_date < ages.until
            ORDER BY archive_date LIMIT (SELECT by_age FROM share) FOR UPDATE SKIP LOCKED) by_age
    ) first LIMIT (SELECT cardinality(high) + cardinality(normal) FROM share) - (SELECT count(*) FROM high)
), low AS MATERIALIZED (
    SELECT * FROM (
        SELECT * FROM (
            SELECT id, priority, run_at AS at, false AS gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE state = 'pending' AND bot = :bot AND kind = :kind AND priority = 'low' AND run_at <= now()
            ORDER BY run_at LIMIT (SELECT by_run_at FROM share) FOR UPDATE SKIP LOCKED) by_run_at
        UNION ALL
        SELECT by_age.* FROM ages, LATERAL (
            SELECT id, priority, archive_date AS at, ages.gone, ended_at, enqueued_at, epoch FROM archive_queue
            WHERE finished_at IS NULL AND worker_id IS NULL AND bot = :bot AND kind = :kind AND priority = 'low' AND run_at <= now()
              AND archive_date >= ages.since AND archive_date < ages.until
            ORDER BY archive_date LIMIT (SELECT by_age FROM share) FOR UPDATE SKIP LOCKED) by_age
    ) first LIMIT (SELECT cardinality(high) + cardinality(normal) + cardinality(low) FROM share)
                     - (SELECT count(*) FROM high) - (SELECT count(*) FROM normal)
), due AS MATERIALIZED (
    SELECT id, at, gone, row_number() OVER (PARTITION BY priority ORDER BY gone, at, id) AS place, priority,
           -- What somebody has had before, or was brought back by a person, is not put off.
           CASE WHEN epoch = 0 THEN archive_first_ask(ended_at, enqueued_at, bot.first_ask) END AS first_ask
    FROM (SELECT * FROM high UNION ALL SELECT * FROM normal UNION ALL SELECT * FROM low) p, bot
), put_off AS (
    UPDATE archive_queue SET run_at = archive_first_ask(ended_at, enqueued_at, (SELECT first_ask FROM bot))
    WHERE id = ANY (ARRAY(SELECT id FROM due WHERE first_ask > now()))
    RETURNING id
), picked AS MATERIALIZED (
    -- In the order of their turns: a short budget cuts off the end.
    SELECT array_agg(id ORDER BY (CASE priority WHEN 'high' THEN high WHEN 'normal' THEN normal ELSE low END)[place], gone, at, id) AS ids
    FROM due, share WHERE first_ask IS NULL OR first_ask <= now()
), drawn AS MATERIALIZED (
    SELECT d.wait, picked.ids[1 : d.granted] AS ids
    FROM picked, archive_draw(:budget, cardinality(picked.ids), :windows::interval[], :limits::integer[]) d
    WHERE picked.ids IS NOT NULL
), turn AS (
    UPDATE archive_holds SET probe_at = now() + :probe_every::interval
    WHERE bot = :bot AND kind = :kind AND probe_at <= now() AND (SELECT cardinality(ids) FROM drawn) > 0
    RETURNING kind
), claimed AS (
    UPDATE archive_queue q
    SET state = 'claimed', worker_id = :worker_id, epoch = epoch + 1, claimed_at = clock_timestamp()
    WHERE id = ANY ((SELECT ids FROM drawn)::bigint[]) AND (NOT EXISTS (SELECT FROM hold) OR EXISTS (SELECT FROM turn))
    RETURNING q.*
), served AS (
    UPDATE archive_bots SET served_at = clock_timestamp() WHERE name = :bot AND EXISTS (SELECT FROM claimed)
)
SELECT coalesce(drawn.wait, interval '0') AS wait, off.n > 0 AS put_off,
       c.id, c.epoch, c.bot, c.session_id, c.kind, c.user_id, c.archive_date,
       CASE WHEN c.started_at BETWEEN c.enqueued_at - interval '10 years' AND '9998-01-01Z' THEN c.started_at
            ELSE c.enqueued_at END AS began_at,
       c.call ->> 'unanswered' AS unanswered, NULL::timestamptz AS unavailable_since, c.claimed_at, c.failures, c.checks, c.crashes,
       c.reason AS put_back_for, EXISTS (SELECT FROM hold) AS probe,
       CASE WHEN c.epoch = 1 THEN '{}'     -- nobody has had it before
            ELSE ARRAY(SELECT jsonb_build_object('source_name', r.source_name, 'ordinal', r.ordinal, 'store_key', r.store_key,
                                                 'file_name', r.file_name, 'bytes', r.bytes)
                       FROM archived_recordings r WHERE r.queue_id = c.id ORDER BY r.ordinal, r.store_key) END AS stored
FROM (SELECT count(*) AS n FROM put_off) off LEFT JOIN drawn ON true LEFT JOIN claimed c ON true
WHERE off.n > 0 OR drawn.ids IS NOT NULL
ORDER BY array_position(drawn.ids, c.id)
