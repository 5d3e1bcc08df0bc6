-- Register a worker with its lease; its ID is new at every start.
INSERT INTO archive_workers (host, pid, version, store, expires_at)
VALUES (:host, :pid, :version, :store, clock_timestamp() + :lease::interval)
RETURNING id
