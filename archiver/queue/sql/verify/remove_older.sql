-- A verify that has read everything of :bot (null: of any) since :than did not meet these again, such as those of a file that is
-- recorded no more. A thousand at a time.
WITH gone AS (
    DELETE FROM archive_findings f
    WHERE f.source = 'verify' AND f.queue_id = ANY (ARRAY(
        SELECT o.queue_id FROM archive_findings o
        WHERE o.source = 'verify' AND o.found_at < :than
          AND (:bot::text IS NULL OR EXISTS (SELECT FROM archive_queue q WHERE q.id = o.queue_id AND q.bot = :bot))
        LIMIT 1000)) AND f.found_at < :than
    RETURNING f.queue_id
)
SELECT count(*) AS removed FROM gone
