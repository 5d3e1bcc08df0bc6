-- phase: expand
-- min_program: 0.2
-- A history of fewer lines, none of which says what another row says already. Who enqueued a session is with the session; a claim, and
-- what was noted during it, is with the line of its end. archive_history tells all of it as it was told before, with the lines of before.
-- And a session that is enqueued as most are is admitted at a glance.

SET LOCAL lock_timeout = '1min';

ALTER TABLE archive_queue ADD COLUMN enqueued_by text, ADD COLUMN enqueued_as text;
COMMENT ON COLUMN archive_queue.enqueued_by IS 'Who enqueued it, where its history has no line that says so.';
COMMENT ON COLUMN archive_queue.enqueued_as IS 'With which priority then; null: normal.';
ALTER TABLE archive_events ADD COLUMN claimed_at timestamptz, ADD COLUMN lines jsonb;
COMMENT ON COLUMN archive_events.claimed_at IS 'Of the end of a claim: when it began.';
COMMENT ON COLUMN archive_events.lines IS 'What was noted during it: an array each of event, microseconds since claimed_at, data; of asked its three facts; of a stored file also its ordinal and the beginning of its hash: the rest says its row in archived_recordings.';

CREATE VIEW archive_history AS
SELECT e.queue_id, e.at, e.event, e.epoch, e.actor,
       -- Of the end of a claim it is left out where it is none.
       CASE WHEN e.claimed_at IS NULL THEN e.data ELSE '{"failures": 0}' || e.data END AS data, e.id, 1000000::bigint AS place
FROM archive_events e
UNION ALL
SELECT q.id, q.enqueued_at, 'enqueued', 0::bigint, q.enqueued_by,
       jsonb_build_object('priority', coalesce(q.enqueued_as, 'normal'), 'state', 'pending'), 0::bigint, 0::bigint
FROM archive_queue q WHERE q.enqueued_by IS NOT NULL
UNION ALL
SELECT e.queue_id, e.claimed_at, 'claimed', e.epoch, e.actor, CASE WHEN e.lines -> 0 ->> 0 = 'claimed' THEN e.lines -> 0 -> 2 ELSE '{}' END,
       e.id, 0::bigint
FROM archive_events e
WHERE e.claimed_at IS NOT NULL AND e.actor <> 'worker 0' -- which is nobody: a repair settles at once
  AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = e.queue_id AND c.epoch = e.epoch AND c.event = 'claimed')
UNION ALL
SELECT q.id, q.claimed_at, 'claimed', q.epoch, 'worker ' || q.worker_id,
       CASE WHEN q.state = 'unavailable' THEN jsonb_build_object('recheck', q.rechecks + 1)
            WHEN q.failures + q.checks + q.crashes = 0 THEN '{}'
            ELSE jsonb_build_object('failures', q.failures, 'checks', q.checks, 'crashes', q.crashes) END,
       9223372036854775807, 0::bigint
FROM archive_queue q
WHERE q.worker_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM archive_events c WHERE c.queue_id = q.id AND c.epoch = q.epoch AND c.event = 'claimed')
UNION ALL
SELECT e.queue_id, e.claimed_at + interval '1 microsecond' * (l.line ->> 1)::bigint, l.line ->> 0, e.epoch, e.actor,
       CASE WHEN l.line -> 3 IS NULL THEN l.line -> 2
            WHEN l.line ->> 0 = 'asked' THEN jsonb_build_object('http_status', l.line -> 2, 'status', l.line -> 3, 'answer', l.line -> 4)
            ELSE coalesce((SELECT jsonb_build_object(
                               'ordinal', r.ordinal, 'source_name', r.source_name, 'file_name', r.file_name, 'store_key', r.store_key,
                               'bytes', r.bytes, 'sha256', r.sha256, 'media_type', r.media_type, 'flags', r.flags, 'seconds', r.seconds,
                               'sample_rate', r.sample_rate, 'channels', r.channels)
                           FROM archived_recordings r
                           WHERE r.queue_id = e.queue_id AND r.ordinal = (l.line ->> 3)::integer AND starts_with(r.sha256, l.line ->> 4)
                           ORDER BY r.archived_at, r.store_key LIMIT 1),
                          jsonb_build_object('ordinal', l.line -> 3)) || (l.line -> 2) END,
       e.id, l.place
FROM archive_events e CROSS JOIN LATERAL jsonb_array_elements(e.lines) WITH ORDINALITY AS l (line, place)
WHERE l.line ->> 0 <> 'claimed';
COMMENT ON VIEW archive_history IS 'What happened to each session, line by line: in the order of at, id, place.';

-- Who was granted the history gets the same of the view, which only tells.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT DISTINCT a.grantee::regrole AS role FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_events'::regclass AND a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, c.relowner) LOOP
        EXECUTE format('GRANT SELECT ON archive_history TO %s', granted.role);
    END LOOP;
END $$;

-- Made as in 0007, with its names filled in: what runs with the owner's rights names every table with its schema.
DO $migration$
DECLARE
    made text;
    name text;
BEGIN
FOREACH made IN ARRAY ARRAY[$admit$

CREATE OR REPLACE FUNCTION archive_admit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $_$
DECLARE
    names text[];
    too_large jsonb := '{}';
    size integer;
    waiting bigint;
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'BEFORE' OR TG_LEVEL <> 'ROW' THEN
        RAISE EXCEPTION 'archive_admit serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    NEW.enqueued_by := session_user;
    NEW.enqueued_as := NULL;
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
    IF length(NEW.session_id) NOT BETWEEN 1 AND 200 OR NEW.session_id ~ '[^A-Za-z0-9._:-]' THEN
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
        NEW.enqueued_by := NULL;    -- its history has a line of its own, as it has more to tell
        NEW.enqueued_as := NULL;
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
        NEW.enqueued_by := NULL;
        NEW.enqueued_as := NULL;
        PERFORM set_config('archiver.put_off', 'some', true);   -- for the rows that follow in this INSERT
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
END $_$
$admit$, $enqueued$

CREATE OR REPLACE FUNCTION archive_enqueued() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'AFTER' OR TG_LEVEL <> 'STATEMENT' THEN
        RAISE EXCEPTION 'archive_enqueued serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO {archive_events} (queue_id, event, epoch, actor, data)
    SELECT id, 'enqueued', 0, session_user,
           jsonb_strip_nulls(jsonb_build_object('priority', priority, 'state', state, 'reason', reason,
                                                'run_at_given', detail -> 'run_at_given'))
    FROM fresh WHERE enqueued_by IS NULL ORDER BY id;
    -- Whoever may log in can fill the server's queue of notifications, and with it full no row could be inserted. Workers look by
    -- themselves, too.
    IF EXISTS (SELECT FROM fresh) AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('archive_queue', '');
    END IF;
    RETURN NULL;
END $$
$enqueued$, $put_off$

-- Whether there is anything that an INSERT may bring forward, which each of its rows would have to look for.
CREATE FUNCTION archive_look_for_put_off() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'BEFORE' OR TG_LEVEL <> 'STATEMENT' THEN
        RAISE EXCEPTION 'archive_look_for_put_off serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM set_config('archiver.put_off', CASE WHEN EXISTS (
        SELECT FROM {archive_queue}
        WHERE state = 'pending' AND epoch = 0 AND detail ? 'run_at_given' AND run_at > now() + interval '1 day') THEN 'some' ELSE 'none' END, true);
    RETURN NULL;
END $$
$put_off$, $number$

-- What every row gets that no default can give.
CREATE FUNCTION archive_number() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'BEFORE' OR TG_LEVEL <> 'ROW' THEN
        RAISE EXCEPTION 'archive_number serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    -- Here current_user is the owner. Whoever belongs to it may bring numbers along: a restore does.
    IF NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
        NEW.id := nextval('{numbers}'::regclass);
    END IF;
    IF NEW.started_at BETWEEN '1970-01-01Z' AND now() + interval '10 years' THEN
        NEW.archive_date := NEW.started_at;
    END IF;
    IF NEW.priority <> 'normal' AND NEW.enqueued_by IS NOT NULL THEN
        NEW.enqueued_as := NEW.priority;
    END IF;
    RETURN NEW;
END $$
$number$] LOOP
    made := replace(made, '''{numbers}''', quote_literal(pg_get_serial_sequence('archive_queue', 'id')));
    FOREACH name IN ARRAY '{archive_bots,archive_events,archive_first_ask,archive_queue,archive_short}'::text[] LOOP
        made := replace(made, '''{' || name || '}''', quote_literal(format('%I.%I', current_schema(), name)));
        made := replace(made, '{' || name || '}', format('%I.%I', current_schema(), name));
    END LOOP;
    EXECUTE made;
END LOOP;
END $migration$;
REVOKE ALL ON FUNCTION archive_look_for_put_off(), archive_number() FROM PUBLIC;

ALTER TABLE archive_queue ALTER COLUMN enqueued_by SET DEFAULT session_user;
DROP TRIGGER archive_queue_admit ON archive_queue;
CREATE TRIGGER archive_queue_put_off BEFORE INSERT ON archive_queue FOR EACH STATEMENT EXECUTE FUNCTION archive_look_for_put_off();
CREATE TRIGGER archive_queue_number BEFORE INSERT ON archive_queue FOR EACH ROW EXECUTE FUNCTION archive_number();
-- Not for what most rows are: nothing is to be mended, nothing is given that is not the producer's, and nothing waits to be brought
-- forward. (An ID of up to 200 characters is not asked of the pattern: to count them takes a regular expression 20 us.)
CREATE TRIGGER archive_queue_admit BEFORE INSERT ON archive_queue FOR EACH ROW WHEN ((
    length(NEW.session_id) BETWEEN 1 AND 200 AND NEW.session_id !~ '[^A-Za-z0-9._:-]' AND length(NEW.bot) <= 200
    AND NEW.kind IN ('recording', 'voicemail')
    AND (NEW.user_id IS NULL OR length(NEW.user_id) <= 500) AND NEW.metadata = '{}'
    AND (NEW.ended_at IS NULL OR NEW.ended_at <= now() - interval '1 hour' AND isfinite(NEW.ended_at))
    AND NEW.run_at = now() AND NEW.enqueued_at = now() AND NEW.archive_date = now()
    AND NEW.state = 'pending' AND NEW.detail = '{}' AND NEW.call = '{}' AND NEW.priority IS NOT NULL
    AND NEW.enqueued_by = session_user AND NEW.enqueued_as IS NULL
    AND NEW.epoch = 0 AND NEW.failures = 0 AND NEW.checks = 0 AND NEW.crashes = 0 AND NEW.calls = 0 AND NEW.rechecks = 0
    AND NEW.recheck_tries = 0 AND NOT NEW.archived_before
    AND num_nonnulls(NEW.reason, NEW.claimed_at, NEW.first_asked_at, NEW.finished_at, NEW.worker_id, NEW.files, NEW.listed_at,
                     NEW.recheck_at, NEW.last_asked_at) = 0
    AND current_setting('archiver.put_off', true) = 'none') IS NOT TRUE)
    EXECUTE FUNCTION archive_admit();
