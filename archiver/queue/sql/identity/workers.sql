-- Living workers, but for :worker_id, and where each stores.
SELECT id, host, pid, store FROM archive_workers
WHERE expires_at > clock_timestamp() AND id IS DISTINCT FROM :worker_id::bigint AND store IS NOT NULL
ORDER BY id
