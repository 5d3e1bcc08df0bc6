-- Claim up to $3 due sessions of one bot, as many as its budget allows; one call is drawn for each.
-- $1 worker, $2 bot, $3 slots, $4 kinds left alone, $5 the one kind wanted (null: any), $6 budget, $7 windows, $8 limits
WITH alive AS MATERIALIZED (
    SELECT FROM archive_workers WHERE id = $1 AND expires_at > clock_timestamp()
), high AS MATERIALIZED (
    SELECT id FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND priority = 'high' AND run_at <= now()
      AND kind <> ALL ($4::text[]) AND kind = coalesce($5, kind) AND EXISTS (SELECT FROM alive)
    ORDER BY run_at LIMIT $3::integer FOR UPDATE SKIP LOCKED
), normal AS MATERIALIZED (
    SELECT id FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND priority = 'normal' AND run_at <= now()
      AND kind <> ALL ($4::text[]) AND kind = coalesce($5, kind) AND EXISTS (SELECT FROM alive)
    ORDER BY run_at LIMIT $3::integer - (SELECT count(*) FROM high) FOR UPDATE SKIP LOCKED
), low AS MATERIALIZED (
    SELECT id FROM archive_queue
    WHERE state = 'pending' AND bot = $2 AND priority = 'low' AND run_at <= now()
      AND kind <> ALL ($4::text[]) AND kind = coalesce($5, kind) AND EXISTS (SELECT FROM alive)
    ORDER BY run_at LIMIT $3::integer - (SELECT count(*) FROM high) - (SELECT count(*) FROM normal)
    FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
    SELECT array_agg(id ORDER BY turn, id) AS ids
    FROM (SELECT id, 1 AS turn FROM high UNION ALL SELECT id, 2 FROM normal UNION ALL SELECT id, 3 FROM low) p
), drawn AS MATERIALIZED (
    SELECT d.granted, d.wait, picked.ids[1 : d.granted] AS ids
    FROM picked, archive_draw($6, coalesce(cardinality(picked.ids), 0), $7::interval[], $8::integer[]) d
), claimed AS (
    UPDATE archive_queue q
    SET state = 'claimed', worker_id = $1, epoch = epoch + 1, claimed_at = clock_timestamp()
    WHERE id = ANY ((SELECT ids FROM drawn)::bigint[])
    RETURNING q.*
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT id, 'claimed', epoch, 'worker ' || worker_id, claimed_at,
           jsonb_build_object('failures', failures, 'checks', checks, 'crashes', crashes)
    FROM claimed
), served AS (
    UPDATE archive_bots SET served_at = clock_timestamp() WHERE name = $2 AND EXISTS (SELECT FROM claimed)
)
SELECT drawn.granted, drawn.wait, c.id, c.epoch, c.bot, c.session_id, c.kind, c.user_id, c.archive_date, c.claimed_at,
       c.failures, c.checks, c.crashes,
       ARRAY(SELECT jsonb_build_object('source_name', r.source_name, 'ordinal', r.ordinal, 'store_key', r.store_key,
                                       'file_name', r.file_name)
             FROM archived_recordings r WHERE r.queue_id = c.id ORDER BY r.ordinal, r.store_key) AS stored
FROM drawn LEFT JOIN claimed c ON true
