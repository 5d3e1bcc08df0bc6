-- Bring ended sessions back with fresh counters, a batch at a time; what is stored stays. Those that were refused when they
-- were inserted, for their session ID or kind, can never work.
-- $1 session IDs (null: all), $2 bot, $3 kind, $4 states, $5 reason (null: any), $6 who, $7 after this row, $8 batch
WITH chosen AS MATERIALIZED (
    SELECT id, state, reason FROM archive_queue
    WHERE state = ANY ($4::text[]) AND state NOT IN ('pending', 'claimed') AND id > $7
      AND reason IS DISTINCT FROM 'invalid_session_id' AND kind IN ('recording', 'voicemail')
      AND ($1::text[] IS NULL OR session_id = ANY ($1)) AND bot = coalesce($2, bot) AND kind = coalesce($3, kind)
      AND ($5::text IS NULL OR reason = $5 OR detail ->> 'reason' = $5)
    ORDER BY id LIMIT $8 FOR UPDATE
), revived AS (
    UPDATE archive_queue q
    SET state = 'pending', reason = NULL, detail = '{}', finished_at = NULL, run_at = clock_timestamp(), failures = 0, checks = 0,
        crashes = 0, first_asked_at = NULL, epoch = q.epoch + 1
    FROM chosen c WHERE q.id = c.id
    RETURNING q.id, q.epoch, q.session_id, c.state, c.reason
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'retried', epoch, $6, jsonb_strip_nulls(jsonb_build_object('was', state, 'reason', reason)) FROM revived
), woken AS (
    SELECT pg_notify('archive_queue', '') WHERE EXISTS (SELECT FROM revived)
)
SELECT r.id, r.session_id FROM revived r LEFT JOIN woken ON true ORDER BY r.id
