-- Sessions of these bots that somebody has to see to: failed ones, and archived ones that an account found wrong, that nobody accepted.
-- Not those of low priority: a backfill has its own end.
SELECT (SELECT count(*) FROM archive_queue
        WHERE state = 'failed' AND finished_at IS NOT NULL AND accepted_at IS NULL AND bot = ANY (:bots::text[]) AND priority <> 'low') AS failed,
       (SELECT count(*) FROM archive_findings f JOIN archive_queue q ON q.id = f.queue_id
        WHERE f.source = 'account' AND q.state = 'archived' AND q.bot = ANY (:bots) AND q.priority <> 'low'
          AND NOT (q.accepted_at IS NOT NULL AND f.findings <@ f.accepted)) AS mismatched
