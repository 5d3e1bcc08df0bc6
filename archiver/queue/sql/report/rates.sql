-- What ended in the last ten minutes, by bot and state: so much of one index is read, however much has ended before. What was
-- refused when it was inserted never was work.
SELECT bot, state, count(*) AS ten_minutes, count(*) FILTER (WHERE finished_at > now() - interval '1 minute') AS minute,
       extract(epoch FROM now() - min(finished_at))::float8 AS seconds
FROM archive_queue
WHERE state IN ('archived', 'unavailable', 'failed') AND finished_at > now() - interval '10 minutes' AND claimed_at IS NOT NULL
GROUP BY bot, state
