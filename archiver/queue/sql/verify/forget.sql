-- What was found of files of :bot (null: of any) that are recorded no more. A thousand sessions at a time.
WITH page AS MATERIALIZED (
    SELECT f.queue_id,
           (SELECT jsonb_agg(e) FROM jsonb_array_elements(f.findings) e
            WHERE EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = f.queue_id AND r.store_key = e ->> 'store_key')) AS findings
    FROM archive_findings f
    WHERE f.source = 'verify' AND f.queue_id > :after
      AND (:bot::text IS NULL OR EXISTS (SELECT FROM archive_queue q WHERE q.id = f.queue_id AND q.bot = :bot))
    ORDER BY f.queue_id LIMIT 1000
), fewer AS (
    UPDATE archive_findings f SET findings = s.findings FROM page s
    WHERE f.queue_id = s.queue_id AND f.source = 'verify' AND s.findings IS NOT NULL AND s.findings <> f.findings
), gone AS (
    DELETE FROM archive_findings f USING page s WHERE f.queue_id = s.queue_id AND f.source = 'verify' AND s.findings IS NULL
)
SELECT max(queue_id) AS last FROM page
