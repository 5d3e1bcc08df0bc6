-- Why sessions ended without a recording, and why others wait.
SELECT state, coalesce(reason, '') AS reason, count(*) AS sessions
FROM archive_queue WHERE state IN ('unavailable', 'failed', 'cancelled') OR (state = 'pending' AND reason IS NOT NULL)
GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
