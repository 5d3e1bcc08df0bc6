-- Write the outcome of one claimed session, if this epoch still owns it. No row: the lease was lost; nothing is written.
-- $1 id, $2 epoch, $3 outcome, $4 reason, $5 detail, $6 delay, $7 max_attempts, $8 not_ready_give_up,
-- $9 files stored, $10 events, $11 calls spent, $12 actor
WITH mine AS MATERIALIZED (
    SELECT q.*, jsonb_array_length($9::jsonb) > 0 OR EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = q.id) AS some
    FROM archive_queue q
    WHERE q.id = $1 AND q.epoch = $2 AND q.state = 'claimed'
    FOR UPDATE OF q
), owned AS MATERIALIZED (
    SELECT q.*, CASE
               WHEN $3 = 'unavailable' AND q.some THEN 'failed'
               WHEN $3 IN ('archived', 'unavailable', 'failed') THEN $3
               WHEN $3 = 'retry' AND q.failures + 1 >= $7::integer THEN 'failed'
               WHEN $3 = 'not_ready' AND coalesce(q.first_asked_at, q.claimed_at) + $8::interval <= clock_timestamp() THEN 'failed'
               ELSE 'pending' END AS next
    FROM mine q
), settled AS (
    UPDATE archive_queue q
    SET state = o.next,
        reason = CASE WHEN o.next = 'failed' AND o.some THEN 'partial'
                      WHEN o.next = 'failed' AND $3 = 'not_ready' THEN 'not_ready'
                      ELSE $4 END,
        detail = CASE WHEN o.next = 'failed' AND o.some THEN $5::jsonb || jsonb_build_object('reason', $4::text)
                      ELSE $5::jsonb END,
        run_at = CASE WHEN o.next = 'pending' THEN clock_timestamp() + $6::interval ELSE q.run_at END,
        finished_at = CASE WHEN o.next = 'pending' THEN NULL ELSE clock_timestamp() END,
        first_asked_at = CASE WHEN $11::integer > 0 THEN coalesce(q.first_asked_at, q.claimed_at) ELSE q.first_asked_at END,
        worker_id = NULL,
        failures = q.failures + ($3 IN ('retry', 'failed'))::integer,
        checks = q.checks + ($3 = 'not_ready')::integer,
        calls = q.calls + $11::integer
    FROM owned o
    WHERE q.id = o.id
    RETURNING q.id, q.epoch, q.bot, q.session_id, q.kind, q.state, q.reason, q.run_at, q.failures
), stored AS (
    INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type,
                                     source_name, flags, queue_id, archived_at)
    SELECT s.bot, s.session_id, s.kind, f.ordinal, f.file_name, f.store_key, f.bytes, f.sha256, f.media_type,
           f.source_name, f.flags, s.id, clock_timestamp()
    FROM settled s, jsonb_to_recordset($9::jsonb) AS f (ordinal integer, file_name text, store_key text, bytes bigint,
                                                        sha256 text, media_type text, source_name text, flags text[])
    ON CONFLICT (queue_id, store_key) DO NOTHING    -- the store holds one body a key, so it is the same one
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT s.id, e.event, s.epoch, $12, e.at, e.data
    FROM settled s, jsonb_to_recordset($10::jsonb) AS e (event text, at timestamptz, data jsonb)
    UNION ALL
    SELECT s.id, CASE WHEN s.state = 'pending' THEN $3 ELSE s.state END, s.epoch, $12, clock_timestamp(),
           jsonb_strip_nulls(jsonb_build_object('reason', s.reason, 'detail', nullif($5::jsonb, '{}'), 'failures', s.failures,
                             'run_at', CASE WHEN s.state = 'pending' THEN s.run_at END))
    FROM settled s
)
SELECT state, reason FROM settled
