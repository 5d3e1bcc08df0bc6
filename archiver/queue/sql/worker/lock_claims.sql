-- Lock what a worker held as :former, and what it had in hand (:ids).
SELECT id FROM archive_queue WHERE worker_id = :former::bigint OR id = ANY (:ids::bigint[]) ORDER BY id FOR UPDATE
