-- Let these sessions, which the caller has locked, be sealed as they are now, and go on behind them the next time. Those that the ledger
-- has, or that wait for it, are passed over; so are those that are being asked for again. A row: how many were adopted; `done`: none
-- are left.
WITH ended AS MATERIALIZED (
    -- By id alone: no plan reads all sessions for each of these.
    SELECT q AS session, q.id FROM archive_queue q WHERE q.id = ANY (:ids::bigint[]) AND q.finished_at IS NOT NULL
), adopted AS (
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'adopted', e.id, archive_ledger_body(e.session, archive_ledger_files(e.id), 'worker')
    FROM ended e JOIN unnest(:ids::bigint[]) WITH ORDINALITY AS n (id, place) ON n.id = e.id
    WHERE NOT EXISTS (SELECT FROM archive_ledger a WHERE a.queue_id = e.id)
      AND e.id NOT IN (SELECT o.queue_id FROM archive_ledger_outbox o WHERE o.queue_id IS NOT NULL)
    ORDER BY n.place
    RETURNING queue_id
), moved AS (
    UPDATE archive_ledger_head
    SET adopt_at = CASE WHEN :allowed::integer <> 0 THEN clock_timestamp() ELSE adopt_at END,
        adopt_before = CASE WHEN :last::boolean THEN NULL ELSE coalesce(:before::text::timestamptz, adopt_before) END,
        adopt_id = coalesce(:before_id::bigint, adopt_id)
)
SELECT (SELECT count(*) FROM adopted)::integer AS adopted, :last::boolean AS done
