-- phase: expand
-- min_program: 0.2
-- required_by: 0.3
-- How much is to be done, for whoever starts and stops workers by it, who need be allowed nothing else.

-- By index alone, and no further than counts: all that waits may be millions. Its statements were parsed here: whatever the caller's
-- search_path has, they mean these tables.
CREATE FUNCTION archive_ready_depth() RETURNS integer LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
BEGIN ATOMIC
    SELECT count(*)::integer FROM (
        SELECT FROM archive_queue q WHERE q.worker_id IS NOT NULL
        UNION ALL
        SELECT FROM archive_bots b CROSS JOIN unnest('{recording,voicemail}'::text[]) k (kind) CROSS JOIN LATERAL (
            SELECT FROM unnest('{high,normal,low}'::text[]) p (priority) CROSS JOIN LATERAL (
                SELECT FROM archive_queue q
                WHERE q.state = 'pending' AND q.bot = b.name AND q.kind = k.kind AND q.priority = p.priority AND q.run_at <= now()
                ORDER BY q.run_at LIMIT 10000) due
            UNION ALL
            (SELECT FROM archive_queue q
             WHERE q.bot = b.name AND q.kind = k.kind AND q.recheck_at <= now() AND q.recheck_at IS NOT NULL AND q.worker_id IS NULL
             ORDER BY q.recheck_at LIMIT 10000)) ready
        WHERE b.configured AND b.paused_at IS NULL
          AND NOT EXISTS (SELECT FROM archive_holds h WHERE h.bot = b.name AND h.kind = k.kind)
        LIMIT 10000) counted;
END;
COMMENT ON FUNCTION archive_ready_depth() IS 'Sessions that are being worked on, or that a worker could begin now: due, of a bot that is configured and neither paused nor held. At most 10,000.';
REVOKE EXECUTE ON FUNCTION archive_ready_depth() FROM PUBLIC;

-- What `archiver enqueue` does, for whoever may enqueue and nothing else: neither read nor change what there is, but raise what
-- waits, and bring it forward. Its history says by whose login.
CREATE FUNCTION archive_enqueue(bots text[], session_ids text[], kinds text[], priorities text[], user_ids text[], started_at timestamptz[],
                                ended_at timestamptz[], metadata jsonb[], actor text)
RETURNS TABLE (added bigint, raised bigint, woken bigint) LANGUAGE sql VOLATILE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off
BEGIN ATOMIC
    WITH given AS MATERIALIZED (
        SELECT DISTINCT ON (session_id, bot, kind) *, array_position('{high,normal,low}', priority) AS rank
        FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[],
                    $6::timestamptz[], $7::timestamptz[], $8::jsonb[])
            WITH ORDINALITY AS g (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata, line)
        ORDER BY session_id, bot, kind, rank, line
    ), known AS MATERIALIZED (
        -- Found by the session ID alone: with the state in the condition the planner may read all that waits, for each of them.
        SELECT id, session_id, bot, kind, state, array_position('{high,normal,low}', priority) AS rank,
               state = 'pending' AND epoch = 0 AND run_at > now() AND detail ? 'run_at_given' AS put_off
        FROM archive_queue WHERE session_id = ANY ($2::text[])
    ), added AS (
        -- Not of those that are known: the trigger would bring them forward, and then this statement could not change them any more.
        INSERT INTO archive_queue (bot, session_id, kind, priority, user_id, started_at, ended_at, metadata)
        SELECT bot, session_id, kind, priority, user_id, started_at, ended_at, metadata FROM given
        WHERE (session_id, bot, kind) NOT IN (SELECT session_id, bot, kind FROM known) ORDER BY session_id, bot, kind
        ON CONFLICT (session_id, bot, kind) DO NOTHING
        RETURNING id
    ), lower AS MATERIALIZED (
        -- Grouped, not joined: of two lists that it takes for short the planner makes a nested loop.
        SELECT max(id) AS id, min(wanted) AS rank, min(wanted) < min(present) AS higher, bool_or(put_off) AS put_off
        FROM (SELECT session_id, bot, kind, NULL::bigint AS id, rank AS wanted, NULL::integer AS present, false AS put_off FROM given
              UNION ALL
              SELECT session_id, bot, kind, id, NULL, rank, put_off FROM known WHERE state = 'pending') both_lists
        GROUP BY session_id, bot, kind HAVING min(wanted) < min(present) OR (bool_or(put_off) AND min(wanted) IS NOT NULL)
    ), locked AS MATERIALIZED (
        SELECT id FROM archive_queue WHERE id = ANY (ARRAY(SELECT id FROM lower)) AND state = 'pending' ORDER BY id FOR UPDATE
    ), changed AS (
        UPDATE archive_queue q
        SET priority = CASE WHEN l.higher THEN ('{high,normal,low}'::text[])[l.rank] ELSE q.priority END,
            run_at = CASE WHEN l.put_off THEN least(q.run_at, now()) ELSE q.run_at END
        FROM lower l
        WHERE q.id = l.id AND l.id = ANY (ARRAY(SELECT id FROM locked))
        RETURNING q.id, q.epoch, q.priority, q.run_at, l.higher, l.put_off
    ), noted AS (
        INSERT INTO archive_events (queue_id, event, epoch, actor, data)
        SELECT id, 'raised', epoch, coalesce(left($9, 200) || ' as ', '') || session_user, jsonb_build_object('priority', priority) FROM changed WHERE higher
        UNION ALL
        SELECT id, 'brought_forward', epoch, coalesce(left($9, 200) || ' as ', '') || session_user, jsonb_build_object('run_at', run_at) FROM changed WHERE put_off
    ), woken AS (
        SELECT pg_notify('archive_queue', '') WHERE EXISTS (SELECT FROM changed WHERE put_off) AND pg_notification_queue_usage() < 0.5
    )
    SELECT (SELECT count(*) FROM added) AS added, (SELECT count(*) FROM changed WHERE higher) AS raised, (SELECT count(*) FROM woken) AS woken;
END;
REVOKE EXECUTE ON FUNCTION archive_enqueue(text[], text[], text[], text[], text[], timestamptz[], timestamptz[], jsonb[], text) FROM PUBLIC;

-- A ledger begins while nobody changes sessions. Whoever may seal need not be allowed to change every column of them for that.
DO $$
BEGIN
    EXECUTE format($function$
CREATE FUNCTION archive_lock_sessions() RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    LOCK TABLE %1$I.archive_queue IN SHARE MODE;
END $body$
$function$, current_schema());
END $$;
REVOKE EXECUTE ON FUNCTION archive_lock_sessions() FROM PUBLIC;

-- What happened stays told as it was, whoever writes: when a repair moves a file, the line that stored it takes over what its row said.
-- The owner may do more: a rebuild tells a history from the store.
CREATE FUNCTION archive_guard_history() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'MEMBER') THEN
        RETURN NEW;
    END IF;
    IF to_jsonb(OLD) - 'lines' <> to_jsonb(NEW) - 'lines' OR jsonb_array_length(NEW.lines) IS DISTINCT FROM jsonb_array_length(OLD.lines) OR EXISTS (
        SELECT FROM jsonb_array_elements(OLD.lines) WITH ORDINALITY o (line, place)
        JOIN jsonb_array_elements(NEW.lines) WITH ORDINALITY n (line, place) USING (place)
        WHERE n.line <> o.line AND NOT coalesce(
            o.line ->> 0 = 'stored' AND jsonb_array_length(o.line) > 3 AND jsonb_array_length(n.line) = 3
            AND n.line -> 0 = o.line -> 0 AND n.line -> 1 = o.line -> 1 AND n.line -> 2 @> (o.line -> 2)
            AND n.line -> 2 -> 'ordinal' = o.line -> 3 AND starts_with(n.line -> 2 ->> 'sha256', o.line ->> 4), false)) THEN
        RAISE EXCEPTION 'the history of a session is not rewritten' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
REVOKE EXECUTE ON FUNCTION archive_guard_history() FROM PUBLIC;
CREATE TRIGGER archive_events_guarded BEFORE UPDATE ON archive_events FOR EACH ROW EXECUTE FUNCTION archive_guard_history();
