-- A worker whose lease ran out while it lived takes back what it held as :former. What nobody has rescued is put back; where a
-- rescuer counted a crash, that is undone, and a session that was given up for it is pending again. None of them died.
-- :ids and :epochs (of one length) are the claims that it had in hand.
WITH held AS MATERIALIZED (
    SELECT id, epoch FROM archive_queue WHERE worker_id = :former::bigint ORDER BY id FOR UPDATE
), put_back AS (
    UPDATE archive_queue
    SET state = CASE state WHEN 'claimed' THEN 'pending' ELSE state END,
        reason = CASE state WHEN 'claimed' THEN 'lease_lost' ELSE reason END,
        worker_id = NULL, epoch = epoch + 1
    WHERE id = ANY (ARRAY(SELECT id FROM held))
    RETURNING id, epoch, bot, session_id, crashes
), leftovers AS (
    INSERT INTO archive_leftovers (queue_id, worker_id, epoch)
    SELECT id, :former::bigint, epoch FROM held ON CONFLICT (queue_id, epoch) DO NOTHING
), rescued AS MATERIALIZED (
    SELECT q.id, q.state,
           q.epoch = c.epoch + 1 AND q.state = 'failed' AND (q.reason = 'crashed_workers' OR q.detail ->> 'reason' = 'crashed_workers') AS given_up
    FROM unnest(:ids::bigint[], :epochs::bigint[]) AS c (id, epoch) JOIN archive_queue q ON q.id = c.id AND q.epoch > c.epoch
    WHERE q.crashes > 0
      AND EXISTS (SELECT FROM archive_events e
                  WHERE e.queue_id = q.id AND e.epoch = c.epoch + 1 AND e.event IN ('rescued', 'failed')
                    AND e.data ->> 'from' = 'worker ' || :former::bigint)
      AND NOT EXISTS (SELECT FROM archive_events e
                      WHERE e.queue_id = q.id AND e.event = 'crash_withdrawn' AND e.data ->> 'from' = 'worker ' || :former::bigint)
    ORDER BY q.id FOR UPDATE OF q
), undone AS (
    UPDATE archive_queue q
    SET crashes = q.crashes - 1,
        state = CASE WHEN r.given_up THEN 'pending' ELSE q.state END,
        reason = CASE WHEN r.given_up THEN 'lease_lost' ELSE q.reason END,
        detail = CASE WHEN r.given_up THEN '{}' ELSE q.detail END,
        finished_at = CASE WHEN r.given_up THEN NULL ELSE q.finished_at END,
        run_at = CASE WHEN r.given_up THEN clock_timestamp() ELSE q.run_at END,
        -- Given up as a recheck, it was to be the last one.
        recheck_at = CASE WHEN q.state = 'unavailable' AND q.worker_id IS NULL AND q.crashes = :max_crashes::integer
                              THEN clock_timestamp() ELSE q.recheck_at END
    FROM rescued r WHERE q.id = r.id
    RETURNING q.id, q.epoch, q.bot, q.session_id, q.crashes
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, data)
    SELECT id, 'handed_back', epoch, 'worker ' || :worker_id::bigint, jsonb_build_object('reason', 'lease_lost', 'from', 'worker ' || :former::bigint)
    FROM put_back
    UNION ALL
    SELECT id, 'crash_withdrawn', epoch, 'worker ' || :worker_id::bigint, jsonb_build_object('reason', 'lease_lost', 'from', 'worker ' || :former::bigint, 'crashes', crashes)
    FROM undone
), gone AS (
    DELETE FROM archive_workers WHERE id = :former::bigint AND expires_at <= clock_timestamp()
)
SELECT (SELECT count(*) FROM put_back)::integer AS put_back, (SELECT count(*) FROM undone)::integer AS undone
