-- A worker's lease; its id is new at every start. $1 host, $2 pid, $3 version, $4 lease
INSERT INTO archive_workers (host, pid, version, expires_at)
VALUES ($1, $2, $3, clock_timestamp() + $4::interval)
RETURNING id
