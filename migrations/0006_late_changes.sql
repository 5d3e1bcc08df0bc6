-- Late changes: sessions without a recording are asked for again, and archived ones may be.

ALTER TABLE archive_queue
    ADD COLUMN recheck_at timestamptz,                          -- an unavailable session is asked for again then; null: never
    ADD COLUMN rechecks integer NOT NULL DEFAULT 0,             -- how often it has been, since it became unavailable
    ADD COLUMN recheck_tries integer NOT NULL DEFAULT 0,        -- of the recheck that is due: tries that came to nothing
    ADD COLUMN last_asked_at timestamptz,                       -- the last claim that spent a call
    ADD COLUMN archived_before boolean NOT NULL DEFAULT false,  -- brought back from archived, and nothing new was listed since
    -- A recheck leaves its session unavailable for every reader: who holds it is told by worker_id alone.
    DROP CONSTRAINT archive_queue_claimed,
    ADD CONSTRAINT archive_queue_claimed CHECK (CASE state WHEN 'claimed' THEN worker_id IS NOT NULL
                                                           WHEN 'unavailable' THEN true
                                                           ELSE worker_id IS NULL END),
    ADD CONSTRAINT archive_queue_recheck CHECK (recheck_at IS NULL OR (state = 'unavailable' AND isfinite(recheck_at)));

-- What workers hold, of whatever state.
DROP INDEX archive_queue_claims;
CREATE INDEX archive_queue_claims ON archive_queue (worker_id) WHERE worker_id IS NOT NULL;
-- Rechecks to come. The state is not in its condition: an index on the state, with millions of rows of one state, must not look
-- like another way to the same rows.
CREATE INDEX archive_queue_rechecks ON archive_queue (bot, kind, recheck_at) WHERE recheck_at IS NOT NULL AND worker_id IS NULL;

-- What may follow what, whoever writes. A recheck ends by its worker alone; a session that was brought back from archived may be
-- taken out again.
DROP TRIGGER archive_queue_transition ON archive_queue;
CREATE TRIGGER archive_queue_transition BEFORE UPDATE OF state ON archive_queue
    FOR EACH ROW WHEN (OLD.state <> NEW.state AND NOT CASE OLD.state
                           WHEN 'pending' THEN NEW.state IN ('claimed', 'cancelled')
                                               OR (OLD.archived_before AND NEW.state = 'archived')
                           WHEN 'claimed' THEN true
                           WHEN 'unavailable' THEN NEW.state = 'pending'
                                                   OR (OLD.worker_id IS NOT NULL AND NEW.state IN ('archived', 'failed'))
                           ELSE NEW.state = 'pending' END)
    EXECUTE FUNCTION archive_refuse_transition();

CREATE OR REPLACE VIEW archive_sessions AS
SELECT bot, session_id, kind, state, reason, priority, user_id, started_at, enqueued_at, run_at, claimed_at,
       first_asked_at, finished_at, failures, checks, crashes, calls, metadata, detail, id AS queue_id, ended_at, call, files, listed_at,
       recheck_at, rechecks, last_asked_at
FROM archive_queue;

-- archive_admit learns which columns are the archiver's besides: files, and those above.
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
    NEW.files := NULL;
    NEW.listed_at := NULL;
    NEW.recheck_at := NULL;
    NEW.rechecks := 0;
    NEW.recheck_tries := 0;
    NEW.last_asked_at := NULL;
    NEW.archived_before := false;
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
