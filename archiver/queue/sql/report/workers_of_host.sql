-- Workers of a host, and whether their leases hold.
SELECT id, pid, expires_at > clock_timestamp() AS alive, (clock_timestamp() - renewed_at) AS silent
FROM archive_workers WHERE host = :host ORDER BY id
