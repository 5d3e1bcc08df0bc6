-- Write the outcomes of claimed sessions, each if its epoch still owns it. One row a session: the state that it is in now; null
-- if the lease was lost: then nothing of it is written. Sent twice (the first answer got lost), it is written once: whoever
-- takes a session away raises its epoch, so one of this epoch that nobody holds any more was settled by us.
-- A recheck leaves its session unavailable until it is archived, or until some of its files are stored and others cannot be.
-- Arrays of one length, one entry a session:
--   :ids, :epochs, :outcomes, :reasons, :details, :delays; :calls to the platform that it took;
--   :stores: files were stored; :listed: how many files the platform listed (null: it didn't say);
--   :keeps: if it was archived before, it may be again; :final: never to be asked for again;
--   :lines: what was noted (null: nothing), as JSON that archive_events.lines takes.
-- :files is a list of objects; their `n` is the place of the session in the arrays, from 1.
-- :max_recheck_asks is how many asks of a recheck fill :not_ready_give_up.
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(:ids::bigint[], :epochs::bigint[], :outcomes::text[], :reasons::text[], :details::jsonb[], :delays::interval[],
                         :calls::integer[], :stores::boolean[], :listed::integer[], :keeps::boolean[], :final::boolean[],
                         :lines::text[])
        WITH ORDINALITY AS g (id, epoch, outcome, reason, detail, delay, spent, stores, files, keeps, final, lines, n)
), locked AS MATERIALIZED (
    -- By id alone and in its order: two batches can't lock each other out, and no plan reads all that is claimed for each row.
    SELECT * FROM archive_queue WHERE id = ANY (:ids::bigint[]) ORDER BY id FOR UPDATE
), mine AS MATERIALIZED (
    SELECT g.*, q.bot, q.worker_id, q.reason AS reason_before, q.detail AS detail_before, q.failures, q.recheck_tries, q.claimed_at, q.first_asked_at,
           q.state = 'unavailable' AS recheck,
           CASE WHEN q.state = 'unavailable' THEN jsonb_build_object('recheck', q.rechecks + 1)
                WHEN q.failures + q.checks + q.crashes > 0
                    THEN jsonb_build_object('failures', q.failures, 'checks', q.checks, 'crashes', q.crashes) END AS claim_facts,
           g.keeps AND q.archived_before AS kept,
           archive_first_ask(q.ended_at, q.enqueued_at, interval '0') AS ended_at
    FROM given g JOIN locked q ON q.id = g.id AND q.epoch = g.epoch AND q.worker_id IS NOT NULL
), judged AS MATERIALIZED (
    SELECT m.*, outcome <> 'archived' AND (stores OR EXISTS (SELECT FROM archived_recordings r WHERE r.queue_id = m.id)) AS some,
           CASE outcome
               WHEN 'handed_back' THEN false
               WHEN 'retry' THEN CASE WHEN recheck THEN recheck_tries ELSE failures END + 1 >= :max_attempts::integer
               WHEN 'not_ready' THEN CASE WHEN recheck THEN recheck_tries + 1 >= :max_recheck_asks::integer
                                          ELSE coalesce(first_asked_at, claimed_at) + :not_ready_give_up::interval <= clock_timestamp() END
               ELSE true END AS over
    FROM mine m
), owned AS MATERIALIZED (
    SELECT j.*, CASE
               WHEN outcome = 'archived' THEN 'archived'
               WHEN recheck THEN CASE WHEN over AND j.some THEN 'failed' ELSE 'unavailable' END
               WHEN NOT over THEN 'pending'
               WHEN kept THEN 'archived'
               WHEN outcome = 'unavailable' AND NOT j.some THEN 'unavailable'
               ELSE 'failed' END AS next,
           -- What the first ask of a call that had ended within the hour teaches (settle/first_ask): its recording was there, or it
           -- was asked for too early, though no earlier than is usual at present.
           CASE WHEN spent > 0 AND first_asked_at IS NULL AND claimed_at - ended_at <= interval '1 hour' THEN
               CASE WHEN outcome = 'archived' THEN 'in_time'
                    WHEN outcome = 'not_ready' AND reason = 'media_in_progress'
                         AND claimed_at - ended_at >= (SELECT b.first_ask FROM archive_bots b WHERE b.name = j.bot) THEN 'too_early' END
           END AS lesson
    FROM judged j
), settled AS (
    UPDATE archive_queue q
    SET state = o.next,
        reason = CASE WHEN o.next = 'failed' AND o.some THEN 'partial'
                      WHEN o.next = 'failed' AND o.outcome = 'not_ready' THEN 'not_ready'
                      WHEN o.next = 'archived' AND o.outcome <> 'archived' THEN 'kept'
                      WHEN o.next = 'unavailable' AND o.outcome <> 'unavailable' THEN q.reason
                      ELSE o.reason END,
        detail = CASE WHEN o.next = 'failed' AND o.some OR o.next = 'archived' AND o.outcome <> 'archived'
                          THEN o.detail || jsonb_build_object('reason', o.reason)
                      WHEN o.next = 'unavailable' AND o.outcome <> 'unavailable' THEN q.detail
                      ELSE o.detail END,
        run_at = CASE WHEN o.next = 'pending' THEN clock_timestamp() + o.delay ELSE q.run_at END,
        finished_at = CASE WHEN o.next = 'pending' THEN NULL
                           WHEN o.recheck AND o.next = 'unavailable' THEN q.finished_at
                           ELSE clock_timestamp() END,
        first_asked_at = CASE WHEN o.spent > 0 THEN coalesce(q.first_asked_at, q.claimed_at) ELSE q.first_asked_at END,
        last_asked_at = CASE WHEN o.spent > 0 THEN q.claimed_at ELSE q.last_asked_at END,
        worker_id = NULL,
        failures = q.failures + (o.outcome IN ('retry', 'failed'))::integer,
        checks = q.checks + (o.outcome = 'not_ready')::integer,
        calls = q.calls + o.spent,
        files = coalesce(o.files, q.files),
        archived_before = o.kept AND o.next = 'pending',
        rechecks = q.rechecks + (o.recheck AND o.spent > 0)::integer,
        recheck_tries = CASE WHEN NOT o.recheck OR o.over THEN 0 ELSE q.recheck_tries + (o.outcome <> 'handed_back')::integer END,
        -- The schedule counts from when it first was unavailable. What passed while nobody asked is left out.
        recheck_at = CASE WHEN o.next <> 'unavailable' OR o.final THEN NULL
                          WHEN NOT o.over THEN clock_timestamp() + o.delay
                          WHEN NOT o.recheck THEN clock_timestamp()      -- looked for once, not for each
                               + (SELECT min(d) FROM unnest(:recheck_unavailable::interval[]) d WHERE d > interval '0')
                          ELSE (SELECT min(q.finished_at + d) FROM unnest(:recheck_unavailable) d
                                WHERE q.finished_at + d > clock_timestamp()) END
    FROM owned o
    WHERE q.id = o.id
    RETURNING q.id, q.epoch, q.bot, q.session_id, q.kind, q.state, q.run_at, q.recheck_at, q.failures, o.outcome, o.worker_id,
              o.lesson, o.n, o.stores, o.claimed_at, o.claim_facts, o.lines::jsonb AS lines, o.recheck AND o.next = 'unavailable' AS stays, CASE WHEN EXISTS (SELECT FROM archive_ledger_head) THEN q END AS session,
              o.next <> 'pending' AND (NOT o.recheck OR o.next <> 'unavailable' OR o.stores
                                       OR (q.reason, q.detail) IS DISTINCT FROM (o.reason_before, o.detail_before)) AS is_news,
              -- What was said this time, which a recheck's row may not tell.
              CASE WHEN o.next = 'unavailable' THEN o.reason ELSE q.reason END AS reason,
              CASE WHEN o.next = 'unavailable' THEN o.detail ELSE q.detail END AS detail
), stored AS (
    INSERT INTO archived_recordings (bot, session_id, kind, ordinal, file_name, store_key, bytes, sha256, media_type,
                                     source_name, flags, seconds, sample_rate, channels, queue_id, archived_at)
    SELECT s.bot, s.session_id, s.kind, f.ordinal, f.file_name, f.store_key, f.bytes, f.sha256, f.media_type,
           f.source_name, f.flags, f.seconds, f.sample_rate, f.channels, s.id, clock_timestamp()
    FROM jsonb_to_recordset(:files::jsonb) AS f (n bigint, ordinal integer, file_name text, store_key text, bytes bigint,
                                             sha256 text, media_type text, source_name text, flags text[], seconds double precision,
                                             sample_rate integer, channels integer)
    JOIN settled s USING (n)
    ON CONFLICT (queue_id, store_key) DO NOTHING    -- the store holds one body a key, so it is the same one
    RETURNING *
), recorded AS (
    -- What waits to be sealed, where there is a ledger: how they ended, with all files so far.
    INSERT INTO archive_ledger_outbox (event, queue_id, body)
    SELECT 'settled', s.id, archive_ledger_body(s.session, (
               SELECT jsonb_agg(f.file ORDER BY f.ordinal, f.store_key)
               FROM (SELECT r.ordinal, r.store_key, archive_ledger_file(r) AS file FROM archived_recordings r WHERE r.queue_id = s.id
                     UNION ALL SELECT r.ordinal, r.store_key, archive_ledger_file(r) FROM stored r WHERE r.queue_id = s.id) f
           ), 'worker ' || s.worker_id)
    FROM settled s WHERE s.is_news AND EXISTS (SELECT FROM archive_ledger_head)
    ORDER BY s.id
), outdated AS (
    -- What an account found wrong with it before more was stored: the next one looks again.
    DELETE FROM archive_findings f
    WHERE f.source = 'account' AND f.queue_id = ANY (ARRAY(SELECT id FROM settled WHERE stores AND state = 'archived'))
), noted AS (
    INSERT INTO archive_events (queue_id, event, epoch, actor, at, data, claimed_at, lines)
    SELECT s.id, CASE WHEN s.stays AND s.outcome = 'failed' THEN 'recheck_failed'   -- the session has not
                      WHEN s.stays OR s.state = 'pending' THEN s.outcome
                      ELSE s.state END,
           s.epoch, 'worker ' || s.worker_id, clock_timestamp(),
           jsonb_strip_nulls(jsonb_build_object('reason', s.reason, 'detail', nullif(s.detail, '{}'), 'failures', nullif(s.failures, 0),
                             'run_at', CASE WHEN s.state = 'pending' THEN s.run_at END, 'recheck_at', s.recheck_at)),
           s.claimed_at,
           CASE WHEN s.claim_facts IS NULL THEN s.lines
                ELSE jsonb_build_array(jsonb_build_array('claimed', 0, s.claim_facts)) || coalesce(s.lines, '[]') END
    FROM settled s
)
SELECT coalesce(s.state, before.state) AS state, s.bot, s.lesson
FROM given g
LEFT JOIN settled s ON s.n = g.n
LEFT JOIN locked before ON before.id = g.id AND before.epoch = g.epoch AND before.worker_id IS NULL
ORDER BY g.n
