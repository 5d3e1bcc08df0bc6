-- What waited to be sealed, and was: by the uid of its entry; or is of a session that is as the ledger has it now.
WITH gone AS (
    DELETE FROM archive_ledger_outbox WHERE uid = ANY (:uids::uuid[]) OR queue_id = ANY (:queue_ids::bigint[]) RETURNING 1
)
SELECT count(*) AS dropped FROM gone
