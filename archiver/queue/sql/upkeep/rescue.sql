-- Take back what dead workers hold, also one that is off the list already (a claim of its own came in while it was taken off).
-- The epoch rises, so that one that comes back from the dead can write nothing.
-- Nothing is taken by a worker (:worker_id; null: somebody else) whose own lease has run out: it was away, and so may others have
-- been that live.
-- A session that took :max_crashes workers down is given up: it would only take the next. A recheck leaves it unavailable and is
-- due as it was; given up, it is the last one.
WITH rescuer AS MATERIALIZED (
    SELECT :worker_id::bigint IS NULL
           OR EXISTS (SELECT FROM archive_workers WHERE id = :worker_id::bigint AND expires_at > clock_timestamp()) AS allowed
), dead AS MATERIALIZED (
    SELECT id FROM archive_workers WHERE expires_at <= clock_timestamp() AND (SELECT allowed FROM rescuer) FOR UPDATE SKIP LOCKED
), lost AS MATERIALIZED (
    SELECT q.id, q.state, q.worker_id, q.epoch, q.claimed_at, q.rechecks, q.failures, q.checks, q.crashes FROM archive_queue q
    WHERE (SELECT allowed FROM rescuer) AND q.worker_id IS NOT NULL AND (q.worker_id = ANY (ARRAY(SELECT id FROM dead))
                                       OR NOT EXISTS (SELECT FROM archive_workers w WHERE w.id = q.worker_id))
    ORDER BY q.id FOR UPDATE OF q
), rescued AS (
    UPDATE archive_queue q
    SET state = CASE WHEN q.state = 'unavailable' THEN q.state WHEN q.crashes + 1 >= :max_crashes::integer THEN 'failed' ELSE 'pending' END,
        reason = CASE WHEN q.state = 'unavailable' THEN q.reason
                      WHEN q.crashes + 1 < :max_crashes::integer THEN 'worker_lost'
                      WHEN EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = q.id) THEN 'partial'
                      ELSE 'crashed_workers' END,
        detail = CASE WHEN q.state = 'unavailable' THEN q.detail
                      ELSE jsonb_build_object('reason', 'crashed_workers', 'crashes', q.crashes + 1) END,
        finished_at = CASE WHEN q.state = 'unavailable' THEN q.finished_at
                           WHEN q.crashes + 1 >= :max_crashes::integer THEN clock_timestamp() END,
        run_at = CASE WHEN q.state = 'unavailable' THEN q.run_at ELSE clock_timestamp() + :backoff_base::interval * q.crashes END,
        recheck_at = CASE WHEN q.crashes + 1 < :max_crashes::integer THEN q.recheck_at END,
        crashes = q.crashes + 1, epoch = q.epoch + 1, worker_id = NULL
    WHERE q.id = ANY (ARRAY(SELECT id FROM lost))
    RETURNING q.id, q.epoch, q.state, q.reason, q.bot, q.session_id, q.crashes, q AS session
), taken AS MATERIALIZED (
    SELECT r.*, lost.worker_id AS lost_worker, lost.epoch AS lost_epoch FROM rescued r JOIN lost USING (id)
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, lost_worker, lost_epoch FROM taken ON CONFLICT (queue_id, epoch) DO NOTHING
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT h.id, 'claimed', h.epoch, 'worker ' || h.worker_id, h.claimed_at,
           CASE WHEN h.state = 'unavailable' THEN jsonb_build_object('recheck', h.rechecks + 1)
                WHEN h.failures + h.checks + h.crashes = 0 THEN '{}'
                ELSE jsonb_build_object('failures', h.failures, 'checks', h.checks, 'crashes', h.crashes) END
    FROM lost h
    WHERE h.worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = h.id AND c.epoch = h.epoch AND c.event = 'claimed')
    UNION ALL
    SELECT id, CASE WHEN state = 'failed' THEN 'failed' ELSE 'rescued' END, epoch, :actor, clock_timestamp(),
           jsonb_build_object('reason', CASE WHEN state <> 'unavailable' THEN reason
                                             WHEN crashes < :max_crashes::integer THEN 'worker_lost'
                                             ELSE 'crashed_workers' END,
                              'from', 'worker ' || lost_worker, 'crashes', crashes)
    FROM taken
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'settled', t.id, archive_ledger_body(t.session, archive_ledger_files(t.id), 'worker ' || t.lost_worker)
    FROM taken t WHERE t.state = 'failed' AND EXISTS (SELECT FROM archive_ledger_head) ORDER BY t.id
), buried AS (
    DELETE FROM archive_workers w
    WHERE w.id = ANY (ARRAY(SELECT id FROM dead)) AND w.expires_at <= clock_timestamp()
)
SELECT bot, session_id, state, reason, crashes, lost_worker FROM taken
