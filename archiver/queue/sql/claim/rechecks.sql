-- Claim up to :slots unavailable sessions of one kind of a bot whose recheck is due (was by :due_by; null: now), as many as its
-- budget allows; one call is drawn for each. They stay unavailable. None of a paused bot or a held kind.
WITH bot AS MATERIALIZED (
    SELECT FROM archive_workers w, archive_bots b
    WHERE w.id = :worker_id AND w.expires_at > clock_timestamp() AND b.name = :bot AND b.paused_at IS NULL
      AND NOT EXISTS (SELECT FROM archive_holds WHERE bot = :bot AND kind = :kind)
), due AS MATERIALIZED (
    SELECT id, recheck_at FROM archive_queue
    WHERE bot = :bot AND kind = :kind AND recheck_at <= least(:due_by::timestamptz, now()) AND worker_id IS NULL
    ORDER BY recheck_at LIMIT (SELECT count(*) FROM bot) * :slots::integer
    FOR UPDATE SKIP LOCKED
), picked AS MATERIALIZED (
    SELECT array_agg(id ORDER BY recheck_at, id) AS ids FROM due
), drawn AS MATERIALIZED (
    SELECT d.wait, picked.ids[1 : d.granted] AS ids
    FROM picked, archive_draw(:budget, cardinality(picked.ids), :windows::interval[], :limits::integer[]) d
    WHERE picked.ids IS NOT NULL
), claimed AS (
    UPDATE archive_queue q SET worker_id = :worker_id, epoch = epoch + 1, claimed_at = clock_timestamp()
    WHERE id = ANY ((SELECT ids FROM drawn)::bigint[])
    RETURNING q.*
), served AS (
    UPDATE archive_bots SET served_at = clock_timestamp() WHERE name = :bot AND EXISTS (SELECT FROM claimed)
)
-- Its tries stand for its failures and checks: delays and the last attempt go by them.
SELECT drawn.wait, false AS put_off, c.id, c.epoch, c.bot, c.session_id, c.kind, c.user_id, c.archive_date,
       CASE WHEN c.started_at BETWEEN c.enqueued_at - interval '10 years' AND '9998-01-01Z' THEN c.started_at
            ELSE c.enqueued_at END AS began_at,
       c.call ->> 'unanswered' AS unanswered, c.finished_at AS unavailable_since, c.claimed_at,
       c.recheck_tries AS failures, c.recheck_tries AS checks, c.crashes, NULL AS put_back_for, false AS probe,
       ARRAY(SELECT jsonb_build_object('source_name', r.source_name, 'ordinal', r.ordinal, 'store_key', r.store_key,
                                       'file_name', r.file_name, 'bytes', r.bytes)
             FROM archived_recordings r WHERE r.queue_id = c.id ORDER BY r.ordinal, r.store_key) AS stored
FROM drawn LEFT JOIN claimed c ON true
ORDER BY array_position(drawn.ids, c.id)
