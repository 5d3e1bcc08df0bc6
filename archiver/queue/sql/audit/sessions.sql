-- Every session from row :first to row :last, with all that is recorded of it and of its files; `to_adopt`: it ended before the
-- ledger was begun, and is still to be adopted.
SELECT q.id, to_jsonb(q) AS session,
       coalesce((SELECT jsonb_agg(to_jsonb(r) ORDER BY r.ordinal, r.store_key) FROM archived_recordings r WHERE r.queue_id = q.id), '[]') AS files,
       coalesce((q.finished_at, q.id) < (h.adopt_before, h.adopt_id), false) AS to_adopt
FROM archive_queue q LEFT JOIN archive_ledger_head h ON true
WHERE q.id BETWEEN :first::bigint AND :last::bigint ORDER BY q.id
