-- Lock what a worker held as :former, and what it had in hand (:ids); first its own row, as a rescuer does. Whoever asks may be
-- stopped before it goes on: nobody is to wait for it for long.
WITH bounded AS MATERIALIZED (
    SELECT set_config('idle_in_transaction_session_timeout', '5s', true), set_config('lock_timeout', '5s', true)
), worker AS MATERIALIZED (
    SELECT w.id FROM archive_workers w, bounded WHERE w.id = :former::bigint FOR UPDATE OF w
)
SELECT q.id FROM archive_queue q
WHERE (q.worker_id = :former::bigint OR q.id = ANY (:ids::bigint[])) AND (SELECT count(*) FROM worker) >= 0
ORDER BY q.id FOR UPDATE OF q
