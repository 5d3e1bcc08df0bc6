-- Why sessions ended without a recording, and why others wait.
SELECT state, reason, sum(sessions)::bigint AS sessions, sum(accepted)::bigint AS accepted
FROM archive_counts WHERE state IN ('unavailable', 'failed', 'cancelled') OR (state = 'pending' AND reason <> '')
GROUP BY 1, 2 ORDER BY 1, 3 DESC, 2
