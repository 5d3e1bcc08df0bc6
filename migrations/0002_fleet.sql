-- What a fleet needs: asks that are timed by what the platform has lately needed.

ALTER TABLE archive_bots
    -- How long after a call's end its recording is first asked for. Learnt from the platform's answers; see archive_learn.
    ADD COLUMN first_ask interval NOT NULL DEFAULT interval '2 minutes',
    ADD CONSTRAINT archive_bots_first_ask CHECK (first_ask BETWEEN interval '0' AND interval '1 hour');
-- Rows that every claim rewrites: with room beside them that touches no index and leaves nothing for a vacuum.
ALTER TABLE archive_bots SET (fillfactor = 20);
ALTER TABLE archive_budgets SET (fillfactor = 20);
ALTER TABLE archive_workers SET (fillfactor = 20);
-- One row a call, deleted when its window has passed.
ALTER TABLE archive_calls SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);

-- What may follow what, whoever writes: told without calling a function, since every session changes its state four times or so.
DROP TRIGGER archive_queue_transition ON archive_queue;
DROP FUNCTION archive_transition();
CREATE FUNCTION archive_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a session that is % cannot become %', OLD.state, NEW.state
        USING ERRCODE = 'check_violation', HINT = 'use "archiver retry" or "archiver cancel"';
END $$;
CREATE TRIGGER archive_queue_transition BEFORE UPDATE OF state ON archive_queue
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state
                           WHEN 'pending' THEN NEW.state IN ('claimed', 'cancelled')
                           WHEN 'claimed' THEN true
                           ELSE NEW.state = 'pending' END)
    EXECUTE FUNCTION archive_refuse_transition();

-- A history line is only ever looked for by its session: one index does for that and for the key.
ALTER TABLE archive_events DROP CONSTRAINT archive_events_pkey;
DROP INDEX archive_events_session;
ALTER TABLE archive_events ADD PRIMARY KEY (queue_id, id);

-- When the call ended, where the producer knows.
ALTER TABLE archive_queue ADD COLUMN ended_at timestamptz;

-- When a session whose call has ended is first asked for. A call can't have ended after it was enqueued: a producer whose clock
-- or time zone is off must not put its sessions off for hours.
CREATE FUNCTION archive_first_ask(ended_at timestamptz, enqueued_at timestamptz, first_ask interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN least(ended_at, enqueued_at) + first_ask;

CREATE OR REPLACE VIEW archive_sessions AS
SELECT bot, session_id, kind, state, reason, priority, user_id, started_at, enqueued_at, run_at, claimed_at,
       first_asked_at, finished_at, failures, checks, crashes, calls, metadata, detail, id AS queue_id, ended_at
FROM archive_queue;

-- archive_admit learns two things: ended_at must be finite, and a call that has just ended isn't asked for before its time.
CREATE OR REPLACE FUNCTION archive_admit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    names text[];
    given jsonb := '{}';
BEGIN
    IF NEW.bot IS NULL THEN
        SELECT coalesce(array_agg(name ORDER BY name), '{}') INTO names FROM archive_bots WHERE configured;
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
    IF length(NEW.session_id) > 200 OR length(NEW.bot) > 200 OR length(NEW.kind) > 200 THEN
        given := jsonb_build_object('given', jsonb_build_object(
            'bot', NEW.bot, 'session_id', NEW.session_id, 'kind', NEW.kind));
    END IF;
    NEW.state := 'pending';
    NEW.reason := NULL;
    NEW.detail := given;
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
    IF NEW.session_id !~ '^[A-Za-z0-9._:-]{1,200}$' THEN
        NEW.state := 'failed';
        NEW.reason := 'invalid_session_id';
        NEW.detail := NEW.detail || jsonb_build_object('expected', '1 to 200 characters of A-Z a-z 0-9 . _ : -');
        NEW.finished_at := now();
    ELSIF NEW.kind NOT IN ('recording', 'voicemail') THEN
        NEW.state := 'failed';
        NEW.reason := 'kind_not_supported';
        NEW.detail := NEW.detail || '{"expected": "recording or voicemail"}';
        NEW.finished_at := now();
    ELSIF NEW.ended_at > now() - interval '1 hour' THEN
        -- As far as is known now; a claim that comes too early puts it off once more.
        NEW.run_at := greatest(NEW.run_at, archive_first_ask(NEW.ended_at, now(),
                                               (SELECT first_ask FROM archive_bots WHERE name = NEW.bot)));
    END IF;
    NEW.session_id := archive_short(NEW.session_id);
    NEW.bot := archive_short(NEW.bot);
    NEW.kind := archive_short(NEW.kind);
    RETURN NEW;
END $$;

DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION archive_admit() SET search_path = %I, pg_temp', current_schema());
END $$;
