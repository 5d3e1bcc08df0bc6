-- What waits, what was given up within :lately, and what came of the last attempts. Reads few messages: those that ended long ago are gone.
SELECT count(*) FILTER (WHERE waits) AS waiting,
       extract(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE waits))::double precision AS oldest_seconds,
       count(*) FILTER (WHERE given_up_at > clock_timestamp() - :lately::interval) AS given_up,
       max(sent_at) AS last_sent_at,
       (array_agg(error ORDER BY due_at DESC) FILTER (WHERE waits AND error IS NOT NULL))[1] AS last_error
FROM (SELECT *, sent_at IS NULL AND given_up_at IS NULL AS waits FROM archive_notifications) m
