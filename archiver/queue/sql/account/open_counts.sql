-- Sessions of these bots that somebody has to see to: failed ones, and archived ones that an account found wrong, that nobody accepted.
SELECT (SELECT coalesce(sum(sessions - accepted), 0)::bigint FROM archive_counts WHERE state = 'failed' AND bot = ANY (:bots::text[])) AS failed,
       (SELECT count(*) FROM archive_findings f JOIN archive_queue q ON q.id = f.queue_id
        WHERE f.source = 'account' AND q.state = 'archived' AND q.bot = ANY (:bots)
          AND NOT (q.accepted_at IS NOT NULL AND f.findings <@ f.accepted)) AS mismatched
