-- Register a worker with its lease; its ID is new at every start.
INSERT INTO archive_workers (host, pid, version, expires_at)
VALUES (:host, :pid, :version, clock_timestamp() + :lease::interval)
RETURNING id
