-- What an account found wrong with archived sessions (:found, objects of `id` and `findings`), and which it found right (:fine).
WITH found AS (
    INSERT INTO archive_findings AS f (queue_id, source, found_by, findings)
    SELECT g.id, 'account', :actor, g.findings FROM jsonb_to_recordset(:found::jsonb) AS g (id bigint, findings jsonb) ORDER BY g.id
    ON CONFLICT (queue_id, source) DO UPDATE SET findings = excluded.findings, found_at = clock_timestamp(), found_by = excluded.found_by
    RETURNING queue_id
)
DELETE FROM archive_findings WHERE source = 'account' AND queue_id = ANY (:fine::bigint[])
