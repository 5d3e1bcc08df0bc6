-- What a session of a bot takes in calls to the platform and in the store: the mean of those that were archived last.
WITH latest AS MATERIALIZED (
    SELECT id, calls FROM archive_queue
    WHERE state = 'archived' AND bot = :bot AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 2000
)
SELECT (SELECT avg(calls) FROM latest)::double precision AS calls,
       (SELECT sum(r.bytes) / count(DISTINCT r.queue_id) FROM archived_recordings r
        WHERE r.queue_id = ANY (ARRAY(SELECT id FROM latest)))::double precision AS bytes
