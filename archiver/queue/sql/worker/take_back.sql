-- A worker whose lease ran out while it lived takes back what it held as :former. What nobody has rescued is put back; where a
-- rescuer counted a crash, that is undone, and a session that was given up for it is pending again. None of them died.
-- :ids and :epochs (of one length) are the claims that it had in hand. All of these rows are locked before: what is read here is
-- what nobody else changes any more.
-- With :max_returns, a session that came back so often counts as crashed after all, and each return makes it wait longer.
WITH held AS MATERIALIZED (
    SELECT q.id, q.state, q.worker_id, q.epoch, q.claimed_at, q.rechecks, q.failures, q.checks, q.crashes, returns.n AS returns, returns.n >= :max_returns::integer IS TRUE AS crashed
    FROM archive_queue q, LATERAL (
        SELECT count(*) AS n FROM archive_events e
        WHERE :max_returns::integer IS NOT NULL AND e.queue_id = q.id AND e.event IN ('handed_back', 'crash_withdrawn')
          AND e.data ->> 'reason' = 'lease_lost' AND (e.data ->> 'stalled')::boolean
    ) returns
    WHERE q.worker_id = :former::bigint
), put_back AS (
    UPDATE archive_queue q
    SET state = CASE q.state WHEN 'claimed' THEN 'pending' ELSE q.state END,
        reason = CASE q.state WHEN 'claimed' THEN 'lease_lost' ELSE q.reason END,
        run_at = CASE q.state WHEN 'claimed' THEN clock_timestamp() + :backoff_base::interval * h.returns ELSE q.run_at END,
        worker_id = NULL, epoch = q.epoch + 1
    FROM held h WHERE q.id = h.id AND NOT h.crashed
    RETURNING q.id, q.epoch
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, :former::bigint, epoch FROM held WHERE NOT crashed ON CONFLICT (queue_id, epoch) DO NOTHING
), rescued AS MATERIALIZED (
    SELECT q.id,
           q.state = 'failed' AND q.crashes <= :max_crashes::integer
               AND (q.reason = 'crashed_workers' OR q.detail ->> 'reason' = 'crashed_workers') AS given_up
    FROM unnest(:ids::bigint[], :epochs::bigint[]) AS c (id, epoch) JOIN archive_queue q ON q.id = c.id AND q.epoch > c.epoch,
         LATERAL (
             SELECT coalesce(bool_or(e.epoch = c.epoch + 1 AND e.event IN ('rescued', 'failed') AND e.data ->> 'from' = w.name), false)
                        AS counted,
                    -- Withdrawn already; or all were forgotten, when a person brought it back.
                    coalesce(bool_or(e.event = 'crash_withdrawn' AND e.data ->> 'from' = w.name
                                     OR e.event = 'retried' AND e.epoch > c.epoch), false) AS settled,
                    count(*) FILTER (WHERE e.event IN ('handed_back', 'crash_withdrawn') AND e.data ->> 'reason' = 'lease_lost'
                                        AND (e.data ->> 'stalled')::boolean) AS returns
             FROM archive_events e, (SELECT 'worker ' || :former::bigint AS name) w
             WHERE e.queue_id = q.id
         ) told
    WHERE q.crashes > 0 AND told.counted AND NOT told.settled AND told.returns < :max_returns::integer IS NOT FALSE
), undone AS (
    UPDATE archive_queue q
    SET crashes = q.crashes - 1,
        state = CASE WHEN r.given_up THEN 'pending' ELSE q.state END,
        reason = CASE WHEN r.given_up THEN 'lease_lost' ELSE q.reason END,
        detail = CASE WHEN r.given_up THEN '{}' ELSE q.detail END,
        finished_at = CASE WHEN r.given_up THEN NULL ELSE q.finished_at END,
        run_at = CASE WHEN r.given_up THEN clock_timestamp() ELSE q.run_at END,
        accepted_at = CASE WHEN r.given_up THEN NULL ELSE q.accepted_at END,
        accepted_by = CASE WHEN r.given_up THEN NULL ELSE q.accepted_by END,
        accept_reason = CASE WHEN r.given_up THEN NULL ELSE q.accept_reason END,
        -- Given up as a recheck, it was to be the last one.
        recheck_at = CASE WHEN q.state = 'unavailable' AND q.worker_id IS NULL AND q.crashes = :max_crashes::integer
                              THEN clock_timestamp() ELSE q.recheck_at END
    FROM rescued r WHERE q.id = r.id
    RETURNING q.id, q.epoch, q.crashes, r.given_up, q AS session
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
    SELECT h.id, 'claimed', h.epoch, 'worker ' || h.worker_id, h.claimed_at,
           CASE WHEN h.state = 'unavailable' THEN jsonb_build_object('recheck', h.rechecks + 1)
                WHEN h.failures + h.checks + h.crashes = 0 THEN '{}'
                ELSE jsonb_build_object('failures', h.failures, 'checks', h.checks, 'crashes', h.crashes) END
    FROM held h
    WHERE h.worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = h.id AND c.epoch = h.epoch AND c.event = 'claimed')
      AND NOT h.crashed
    UNION ALL
    SELECT id, 'handed_back', epoch, 'worker ' || :worker_id::bigint, clock_timestamp(),
           jsonb_build_object('reason', 'lease_lost', 'from', 'worker ' || :former::bigint, 'stalled', :max_returns::integer IS NOT NULL)
    FROM put_back
    UNION ALL
    SELECT id, 'crash_withdrawn', epoch, 'worker ' || :worker_id::bigint, clock_timestamp(),
           jsonb_build_object('reason', 'lease_lost', 'from', 'worker ' || :former::bigint, 'stalled', :max_returns::integer IS NOT NULL,
                              'crashes', crashes)
    FROM undone
), recorded AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'reopened', u.id, archive_ledger_body(u.session, archive_ledger_files(u.id), 'worker ' || :worker_id::bigint)
    FROM undone u WHERE u.given_up AND EXISTS (SELECT FROM archive_ledger_head) ORDER BY u.id
), gone AS (
    -- It holds nothing any more, unless what it holds counts as crashed: then a rescuer takes that, and the row with it.
    DELETE FROM archive_workers WHERE id = :former::bigint AND NOT EXISTS (SELECT FROM held WHERE crashed)
)
SELECT (SELECT count(*) FROM put_back)::integer AS put_back, (SELECT count(*) FROM undone)::integer AS undone
