-- phase: expand
-- min_program: 0.1
-- What strangers may do with the queue: who may log in calls no function of ours, who may insert chooses no row's number, puts no
-- session off for longer than a month, and aborts no batch by a value of megabytes.

-- A producer who never commits must not make every other one wait behind this.
SET LOCAL lock_timeout = '1min';

ALTER TABLE archive_migrations
    -- What a migration's header says; null for those before there were headers.
    ADD COLUMN phase text,
    ADD COLUMN transactional boolean,
    ADD COLUMN min_program text;

-- Nobody inserts meanwhile: what follows holds for every row.
LOCK TABLE archive_queue IN SHARE ROW EXCLUSIVE MODE;

-- Numbers that rows have and that were never given: those to come begin behind them, in the first gap that will last.
DO $$
DECLARE
    numbers text := pg_get_serial_sequence('archive_queue', 'id');
    last bigint;
    given boolean;
BEGIN
    EXECUTE format('SELECT last_value, is_called FROM %s', numbers) INTO last, given;
    IF EXISTS (SELECT FROM archive_queue WHERE id > last OR (id = last AND NOT given)) THEN
        PERFORM setval(numbers, min(id))
        FROM (SELECT id, lead(id, 1, 9223372036854775807) OVER (ORDER BY id) - id AS room
              FROM (SELECT last AS id UNION SELECT q.id FROM archive_queue q WHERE q.id > last) taken) gaps
        WHERE room > 1099511627776;
    END IF;
END $$;

-- Sessions that were put off for years before there was a limit.
WITH clamped AS (
    UPDATE archive_queue SET run_at = now() + interval '30 days', detail = detail || jsonb_build_object('run_at_given', run_at)
    WHERE state = 'pending' AND epoch = 0 AND run_at > now() + interval '30 days'
    RETURNING id, detail
)
INSERT INTO archive_events (queue_id, event, epoch, data)
SELECT id, 'clamped', 0, jsonb_build_object('run_at_given', detail -> 'run_at_given') FROM clamped;

-- What runs with the owner's rights names every table with its schema and finds functions and operators in pg_catalog alone: in a
-- schema of the database others may have made some that fit better. So each is made with its names filled in.
DO $migration$
DECLARE
    made text;
    name text;
BEGIN
FOREACH made IN ARRAY ARRAY[$admit$

-- A producer's batch must never be aborted by one bad session ID, and never forge a state.
-- SECURITY DEFINER: a producer needs INSERT on archive_queue, and nothing else. So it refuses every other table, before it touches
-- a value: the types of a stranger's columns may run a stranger's code.
CREATE OR REPLACE FUNCTION archive_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    names text[];
    too_large jsonb := '{}';
    size integer;
    waiting bigint;
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'BEFORE' OR TG_LEVEL <> 'ROW' THEN
        RAISE EXCEPTION 'archive_admit serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Here current_user is the owner. Whoever belongs to it may bring numbers along: a restore does.
    IF NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        NEW.id := nextval('{numbers}'::regclass);
    END IF;
    IF NEW.bot IS NULL THEN
        SELECT coalesce(array_agg(name ORDER BY name), '{}') INTO names FROM {archive_bots} WHERE configured;
        IF cardinality(names) <> 1 THEN
            RAISE EXCEPTION 'bot is missing, and % bots are configured', cardinality(names)
                USING ERRCODE = 'not_null_violation', COLUMN = 'bot', TABLE = 'archive_queue',
                      HINT = CASE WHEN cardinality(names) = 0
                                  THEN 'name the bot, or run "archiver migrate" with the configuration that has it'
                                  ELSE 'name one of: ' || array_to_string(names, ', ') END;
        END IF;
        NEW.bot := names[1];
    END IF;
    NEW.session_id := coalesce(NEW.session_id, '');
    NEW.kind := coalesce(NEW.kind, 'recording');
    NEW.priority := coalesce(NEW.priority, 'normal');
    NEW.metadata := coalesce(nullif(NEW.metadata, 'null'), '{}');
    NEW.run_at := CASE WHEN NEW.run_at IS NULL OR NOT isfinite(NEW.run_at) THEN now() ELSE NEW.run_at END;
    NEW.ended_at := CASE WHEN isfinite(NEW.ended_at) THEN NEW.ended_at END;
    NEW.state := 'pending';
    NEW.reason := NULL;
    NEW.detail := '{}';
    NEW.enqueued_at := now();
    NEW.archive_date := CASE WHEN NEW.started_at BETWEEN '1970-01-01Z' AND now() + interval '10 years'
                             THEN NEW.started_at ELSE now() END;
    NEW.claimed_at := NULL;
    NEW.first_asked_at := NULL;
    NEW.finished_at := NULL;
    NEW.worker_id := NULL;
    NEW.epoch := 0;
    NEW.failures := 0;
    NEW.checks := 0;
    NEW.crashes := 0;
    NEW.calls := 0;
    NEW.files := NULL;
    NEW.listed_at := NULL;
    NEW.recheck_at := NULL;
    NEW.rechecks := 0;
    NEW.recheck_tries := 0;
    NEW.last_asked_at := NULL;
    NEW.archived_before := false;
    NEW.call := '{}';
    IF length(NEW.user_id) > 500 THEN
        too_large := jsonb_build_object('user_id', length(NEW.user_id));
        NEW.user_id := NULL;
    END IF;
    IF NEW.metadata <> '{}' THEN
        -- What it takes when it is not compressed, before it is made text: that may be six times as long, and more than there can be.
        size := CASE jsonb_typeof(NEW.metadata) WHEN 'object' THEN pg_column_size(NEW.metadata || '{}')
                                                WHEN 'array' THEN pg_column_size(NEW.metadata || '[]')
                                                ELSE octet_length(NEW.metadata #>> '{}') END;
        IF size > 1048576 OR octet_length(NEW.metadata::text) > 65536 THEN
            too_large := too_large || jsonb_build_object('metadata', size);
            NEW.metadata := '{}';
        END IF;
    END IF;
    IF length(NEW.session_id) > 200 OR length(NEW.bot) > 200 OR length(NEW.kind) > 200 THEN
        NEW.detail := jsonb_build_object('given', jsonb_build_object(
            'bot', left(NEW.bot, 10000), 'session_id', left(NEW.session_id, 10000), 'kind', left(NEW.kind, 10000)));
    END IF;
    IF length(NEW.session_id) > 200 OR NEW.session_id !~ '^[A-Za-z0-9._:-]{1,200}$' THEN
        NEW.state := 'failed';
        NEW.reason := 'invalid_session_id';
        NEW.detail := NEW.detail || jsonb_build_object('expected', '1 to 200 characters of A-Z a-z 0-9 . _ : -');
    ELSIF NEW.kind NOT IN ('recording', 'voicemail') THEN
        NEW.state := 'failed';
        NEW.reason := 'kind_not_supported';
        NEW.detail := NEW.detail || '{"expected": "recording or voicemail"}';
    ELSIF too_large <> '{}' THEN
        NEW.state := 'failed';
        NEW.reason := 'metadata_too_large';
        NEW.detail := NEW.detail || jsonb_build_object('dropped', too_large, 'expected',
                          'a user_id of at most 500 characters, metadata of at most 65536 bytes');
    END IF;
    IF length(NEW.session_id) > 200 THEN
        NEW.session_id := {archive_short}(NEW.session_id);
    END IF;
    IF length(NEW.bot) > 200 THEN
        NEW.bot := {archive_short}(NEW.bot);
    END IF;
    IF length(NEW.kind) > 200 THEN
        NEW.kind := {archive_short}(NEW.kind);
    END IF;
    IF NEW.state = 'failed' THEN
        NEW.finished_at := now();
        RETURN NEW;
    END IF;
    IF NEW.ended_at > now() - interval '1 hour' THEN
        -- As far as is known now; a claim that comes too early puts it off once more.
        NEW.run_at := greatest(NEW.run_at, {archive_first_ask}(NEW.ended_at, now(),
                                               (SELECT first_ask FROM {archive_bots} WHERE name = NEW.bot)));
    END IF;
    IF NEW.run_at > now() + interval '30 days' THEN
        NEW.detail := NEW.detail || jsonb_build_object('run_at_given', NEW.run_at);
        NEW.run_at := now() + interval '30 days';
    END IF;
    -- Whoever put a session off for longer than that does not keep it from others. Found by its ID alone, lest some plan read all that
    -- waits; what is found is looked at again once nobody else has it locked. What falls due within a day is left to come: a producer
    -- who brought it forward and never committed would keep it locked, and a drain waits for what falls due so soon.
    SELECT id INTO waiting
    FROM (SELECT id, bot, kind, state, epoch, run_at, detail FROM {archive_queue} WHERE session_id = NEW.session_id OFFSET 0) known
    WHERE bot = NEW.bot AND kind = NEW.kind AND state = 'pending' AND epoch = 0 AND detail ? 'run_at_given'
        AND run_at > greatest(NEW.run_at, now() + interval '1 day');
    IF FOUND THEN
        UPDATE {archive_queue} SET run_at = NEW.run_at
        WHERE id = waiting AND state = 'pending' AND epoch = 0 AND run_at > greatest(NEW.run_at, now() + interval '1 day');
        IF FOUND THEN
            INSERT INTO {archive_events} (queue_id, event, epoch, actor, data)
            VALUES (waiting, 'brought_forward', 0, session_user, jsonb_build_object('run_at', NEW.run_at));
            IF pg_notification_queue_usage() < 0.5 THEN
                PERFORM pg_notify('archive_queue', '');
            END IF;
        END IF;
    END IF;
    RETURN NEW;
END $$
$admit$, $enqueued$

-- One history line a session and one wake-up a statement, whoever inserts.
CREATE OR REPLACE FUNCTION archive_enqueued() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'AFTER' OR TG_LEVEL <> 'STATEMENT' THEN
        RAISE EXCEPTION 'archive_enqueued serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO {archive_events} (queue_id, event, epoch, actor, data)
    SELECT id, 'enqueued', 0, session_user,
           jsonb_strip_nulls(jsonb_build_object('priority', priority, 'state', state, 'reason', reason,
                                                'run_at_given', detail -> 'run_at_given'))
    FROM fresh ORDER BY id;
    -- Whoever may log in can fill the server's queue of notifications, and with it full no row could be inserted. Workers look by
    -- themselves, too.
    IF FOUND AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('archive_queue', '');
    END IF;
    RETURN NULL;
END $$
$enqueued$] LOOP
    made := replace(made, '''{numbers}''', quote_literal(pg_get_serial_sequence('archive_queue', 'id')));
    FOREACH name IN ARRAY '{archive_queue,archive_bots,archive_events,archive_short,archive_first_ask}'::text[] LOOP
        made := replace(made, '''{' || name || '}''', quote_literal(format('%I.%I', current_schema(), name)));
        made := replace(made, '{' || name || '}', format('%I.%I', current_schema(), name));
    END LOOP;
    EXECUTE made;
END LOOP;
END $migration$;

-- As it was, but that its conflict names its target.
CREATE OR REPLACE FUNCTION archive_draw(budget text, wanted integer, windows interval[], limits integer[])
RETURNS TABLE (granted integer, wait interval) LANGUAGE plpgsql AS $$
DECLARE
    state archive_budgets;
    clock timestamptz;
    burst integer;
    pace interval;
    reach interval;
    used bigint;
BEGIN
    granted := greatest(wanted, 0);
    wait := interval '0';
    INSERT INTO archive_budgets (key) VALUES (budget) ON CONFLICT (key) DO NOTHING;
    SELECT * INTO state FROM archive_budgets WHERE key = budget FOR UPDATE;
    clock := clock_timestamp();
    IF state.blocked_until > clock THEN
        granted := 0;
        wait := state.blocked_until - clock;
        RETURN NEXT;
        RETURN;
    END IF;
    IF granted = 0 OR cardinality(windows) = 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;
    burst := greatest(1, limits[1] / 100);
    reach := windows[1] + least(windows[1] / 50, interval '2 seconds');
    pace := reach / greatest(1, limits[1] - burst) + interval '1 microsecond';  -- rounded up
    state.arrival := greatest(state.arrival, clock);
    granted := least(granted, floor(burst - extract(epoch FROM state.arrival - clock) / extract(epoch FROM pace) + 1e-6));
    IF granted < 1 THEN
        granted := 0;
        wait := state.arrival - clock - pace * (burst - 1);
    END IF;
    FOR i IN 2 .. cardinality(windows) LOOP
        reach := windows[i] + least(windows[i] / 50, interval '2 seconds');
        SELECT count(*) INTO used FROM archive_calls c WHERE c.key = budget AND c.at > clock - reach;
        granted := least(granted, greatest(0, limits[i] - used));
        IF used >= limits[i] THEN   -- one more when the oldest of the last `limit` calls has left the window
            SELECT greatest(wait, c.at + reach - clock) INTO wait FROM archive_calls c
            WHERE c.key = budget AND c.at > clock - reach ORDER BY c.at DESC OFFSET limits[i] - 1 LIMIT 1;
        END IF;
    END LOOP;
    IF granted > 0 THEN
        UPDATE archive_budgets SET arrival = state.arrival + pace * granted WHERE key = budget;
        IF cardinality(windows) > 1 THEN
            DELETE FROM archive_calls c WHERE c.key = budget AND c.at < clock - windows[cardinality(windows)] * 1.1;
            INSERT INTO archive_calls (key, at) SELECT budget, clock FROM generate_series(1, granted);
        END IF;
    END IF;
    RETURN NEXT;
END $$;

-- Triggers, and the functions that they call, need nobody's right to execute. Only statements of the archiver call the rest, and
-- those who were granted the queue's rows run them.
REVOKE EXECUTE ON FUNCTION archive_admit(), archive_enqueued(), archive_refuse_transition(), archive_short(text),
    archive_first_ask(timestamptz, timestamptz, interval), archive_draw(text, integer, interval[], integer[]) FROM PUBLIC;

DO $$
DECLARE
    reader regrole;
BEGIN
    FOR reader IN SELECT DISTINCT a.grantee FROM pg_class c, aclexplode(c.relacl) a
                  WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner)
                  UNION     -- workers that were granted all data of the server, or what everybody was
                  SELECT r.oid FROM pg_roles r
                  WHERE r.rolcanlogin AND NOT r.rolsuper AND has_table_privilege(r.oid, 'archive_queue', 'SELECT')
                    AND has_table_privilege(r.oid, 'archive_budgets', 'UPDATE')
                    AND NOT pg_has_role(r.oid, (SELECT relowner FROM pg_class WHERE oid = 'archive_queue'::regclass), 'USAGE')
                    AND NOT EXISTS (SELECT FROM pg_class c, aclexplode(c.relacl) a
                                    WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> 0
                                      AND pg_has_role(r.oid, a.grantee, 'USAGE')) LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION archive_short(text), archive_first_ask(timestamptz, timestamptz, interval), '
                       'archive_draw(text, integer, interval[], integer[]) TO %s', reader);
    END LOOP;
END $$;
