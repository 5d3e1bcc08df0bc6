-- What is wrong with the files of a session, as far as verify or repair knows last.
INSERT INTO archive_findings (queue_id, source, found_at, found_by, findings)
VALUES (:queue_id, 'verify', clock_timestamp(), :actor, :findings)
ON CONFLICT (queue_id, source) DO UPDATE
SET found_at = excluded.found_at, found_by = excluded.found_by, findings = excluded.findings
