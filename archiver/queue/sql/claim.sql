-- Claim up to $4 due sessions of one kind of a bot, as many as its budget allows; one call is drawn for each. Of a held kind
-- one session, if it is time to try again; whoever gets it has the turn, and the next turn comes after $8.
-- $1 worker, $2 bot, $3 kind, $4 slots, $5 budget, $6 windows, $7 limits, $8 time between probes
WITH hold AS MATERIALIZED (
    SELECT probe_at <= now() AS open FROM archive_holds WHERE bot = $2 AND kind = $3
), slots AS MATERIALIZED (
    SELECT CASE WHEN EXISTS (SELECT FROM hold WHERE NOT open) THEN 0
                WHEN EXISTS (SELECT FROM hold) THEN least($4::integer, 1)
                ELSE $4 END AS n
    FROM archive_workers w, archive_bots b
    WHERE w.id = $1 AND w.expires_at > clock_timestamp() AND b.name = $2 AND b.paused_at IS NULL
), high AS MATERIALIZED (
    SELECT id, run_at FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND kind = $3 AND priority = 'high' AND run_at <= now()
    ORDER BY run_at LIMIT coalesce((SELECT n FROM slots), 0)
    FOR UPDATE SKIP LOCKED
), normal AS MATERIALIZED (
    SELECT id, run_at FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND kind = $3 AND priority = 'normal' AND run_at <= now()
    ORDER BY run_at LIMIT coalesce((SELECT n FROM slots), 0) - (SELECT count(*) FROM high)
    FOR UPDATE SKIP LOCKED
), low AS MATERIALIZED (
    SELECT id, run_at FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND kind = $3 AND priority = 'low' AND run_at <= now()
    ORDER BY run_at LIMIT coalesce((SELECT n FROM slots), 0) - (SELECT count(*) FROM high) - (SELECT count(*) FROM normal)
    FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
    SELECT array_agg(id ORDER BY turn, run_at, id) AS ids
    FROM (SELECT *, 1 AS turn FROM high UNION ALL SELECT *, 2 FROM normal UNION ALL SELECT *, 3 FROM low) p
), drawn AS MATERIALIZED (
    SELECT d.wait, picked.ids[1 : d.granted] AS ids
    FROM picked, archive_draw($5, cardinality(picked.ids), $6::interval[], $7::integer[]) d
    WHERE picked.ids IS NOT NULL
), turn AS (
    UPDATE archive_holds SET probe_at = now() + $8::interval
    WHERE bot = $2 AND kind = $3 AND probe_at <= now() AND (SELECT cardinality(ids) FROM drawn) > 0
    RETURNING kind
), claimed AS (
    UPDATE archive_queue q
    SET state = 'claimed', worker_id = $1, epoch = epoch + 1, claimed_at = clock_timestamp()
    WHERE id = ANY ((SELECT ids FROM drawn)::bigint[]) AND (NOT EXISTS (SELECT FROM hold) OR EXISTS (SELECT FROM turn))
    RETURNING q.*
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT id, 'claimed', epoch, 'worker ' || worker_id, claimed_at,
           jsonb_build_object('failures', failures, 'checks', checks, 'crashes', crashes)
    FROM claimed
), served AS (
    UPDATE archive_bots SET served_at = clock_timestamp() WHERE name = $2 AND EXISTS (SELECT FROM claimed)
)
SELECT drawn.wait, c.id, c.epoch, c.bot, c.session_id, c.kind, c.user_id, c.archive_date, c.claimed_at,
       c.failures, c.checks, c.crashes, c.reason AS put_back_for, EXISTS (SELECT FROM hold) AS probe,
       ARRAY(SELECT jsonb_build_object('source_name', r.source_name, 'ordinal', r.ordinal, 'store_key', r.store_key,
                                       'file_name', r.file_name)
             FROM archived_recordings r WHERE r.queue_id = c.id ORDER BY r.ordinal, r.store_key) AS stored
FROM drawn LEFT JOIN claimed c ON true
ORDER BY array_position(drawn.ids, c.id)
