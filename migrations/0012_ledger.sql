-- phase: expand
-- min_program: 0.2
-- The ledger: what ended, or was brought back, waits in an outbox to be sealed in the store; here is only what puts it in order. Nothing is written before a ledger is begun: see archive_ledger_head.
SET LOCAL lock_timeout = '1min';

-- At once all that is needed: whoever holds a lesser lock and waits for a greater one waits for others that do the same.
LOCK TABLE archive_queue, archived_recordings IN ACCESS EXCLUSIVE MODE;

ALTER TABLE archived_recordings ADD COLUMN sample_rate integer, ADD COLUMN channels integer;
COMMENT ON COLUMN archived_recordings.sample_rate IS 'Samples a second, as its format says. Null: the format does not tell, or it was archived before this was kept.';

CREATE TABLE archive_ledger_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid uuid NOT NULL DEFAULT gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT clock_timestamp() CHECK (at BETWEEN '1970-01-01Z' AND '9999-01-01Z'),
    event text NOT NULL,
    queue_id bigint,
    body jsonb NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
COMMENT ON TABLE archive_ledger_outbox IS 'What waits to be sealed: a row goes when its entry is in a batch.';

CREATE TABLE archive_ledger_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    origin text NOT NULL,
    public_key text NOT NULL,
    signers integer NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    root bytea NOT NULL,
    frontier bytea[] NOT NULL DEFAULT '{}',
    published bigint NOT NULL DEFAULT 0,
    published_at timestamptz,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealer uuid,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    adopt_before timestamptz DEFAULT 'infinity',
    adopt_id bigint NOT NULL DEFAULT 9223372036854775807,
    adopt_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 20);
COMMENT ON TABLE archive_ledger_head IS 'One row once a ledger is begun: how many entries it has, and what the tree over them needs to grow.';
COMMENT ON COLUMN archive_ledger_head.public_key IS 'The key that signs the next checkpoint. signers: how many keys there have been.';
COMMENT ON COLUMN archive_ledger_head.published IS 'Entries that the store has, up to its newest checkpoint.';
COMMENT ON COLUMN archive_ledger_head.adopt_before IS 'Sessions that ended before the ledger was begun are adopted, newest first: those before this are still to come. Null: none.';

CREATE TABLE archive_ledger_batches (
    first bigint PRIMARY KEY,
    last bigint NOT NULL CHECK (last >= first),
    checkpoint bytea NOT NULL,
    sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at timestamptz,
    signature bytea,
    lines bytea,
    object_keys text[],
    objects bytea[],
    CHECK (published_at IS NULL OR (signature IS NULL AND lines IS NULL AND object_keys IS NULL AND objects IS NULL))
);
ALTER TABLE archive_ledger_batches ALTER COLUMN lines SET STORAGE EXTERNAL, ALTER COLUMN objects SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX archive_ledger_batches_unpublished ON archive_ledger_batches ((true)) WHERE published_at IS NULL;
COMMENT ON TABLE archive_ledger_batches IS 'Each segment of the ledger, with all bytes that belong to it until the store has them.';

CREATE TABLE archive_ledger (
    seq bigint PRIMARY KEY,
    queue_id bigint,
    edition integer,
    salt bytea
);
CREATE INDEX archive_ledger_session ON archive_ledger (queue_id) WHERE queue_id IS NOT NULL;
COMMENT ON TABLE archive_ledger IS 'Which entries of the ledger are about which session. Their text is in the store.';
COMMENT ON COLUMN archive_ledger.edition IS 'Which edition of the session''s record the entry names. Null: none.';
COMMENT ON COLUMN archive_ledger.salt IS 'Of a session whose ID the entry has only as a hash.';

-- What an outbox row says of a session: what is known of it at that moment. One place for all statements.
CREATE FUNCTION archive_ledger_body(q archive_queue, files jsonb, by text) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'session', jsonb_build_object(
        'bot', q.bot, 'session_id', q.session_id, 'kind', q.kind, 'state', q.state, 'reason', q.reason, 'detail', q.detail,
        'user_id', q.user_id, 'started_at', q.started_at, 'ended_at', q.ended_at, 'archive_date', q.archive_date,
        'enqueued_at', q.enqueued_at, 'finished_at', q.finished_at, 'metadata', q.metadata, 'call', q.call, 'priority', q.priority,
        'failures', q.failures, 'checks', q.checks, 'crashes', q.crashes, 'calls', q.calls, 'rechecks', q.rechecks, 'epoch', q.epoch,
        'listed_at', q.listed_at, 'accepted_at', q.accepted_at, 'accepted_by', q.accepted_by, 'accept_reason', q.accept_reason),
    'files', coalesce(files, '[]'), 'by', by);

CREATE FUNCTION archive_ledger_file(r archived_recordings) RETURNS jsonb LANGUAGE sql STABLE
RETURN jsonb_build_object(
    'ordinal', r.ordinal, 'source_name', r.source_name, 'file_name', r.file_name, 'store_key', r.store_key, 'bytes', r.bytes,
    'sha256', r.sha256, 'media_type', r.media_type, 'flags', r.flags, 'seconds', r.seconds, 'sample_rate', r.sample_rate,
    'channels', r.channels, 'archived_at', r.archived_at);

-- The recorded files of a session whose row is locked. Volatile, so that it sees those that others recorded while the statement that calls
-- it waited for the row.
CREATE FUNCTION archive_ledger_files(of_session bigint) RETURNS jsonb LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT jsonb_agg(archive_ledger_file(r) ORDER BY r.ordinal, r.store_key) FROM archived_recordings r WHERE r.queue_id = of_session;
END;

-- A session that is refused when it is inserted ends at once. Not noted before it is inserted: what is there already is inserted by
-- nobody. Whoever may insert need not be allowed more: so it runs as the owner, and names everything.
DO $$
DECLARE
    made text := $function$
CREATE FUNCTION {archive_record_refusal}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
BEGIN
    IF TG_RELID <> '{archive_queue}'::regclass OR TG_OP <> 'INSERT' OR TG_WHEN <> 'AFTER' OR TG_LEVEL <> 'ROW' THEN
        RAISE EXCEPTION 'archive_record_refusal serves archive_queue alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM {archive_ledger_head}) THEN
        INSERT INTO {archive_ledger_outbox} (event, queue_id, body)
        VALUES ('settled', NEW.id, {archive_ledger_body}(NEW, '[]', session_user));
    END IF;
    RETURN NULL;
END $body$
$function$;
    name text;
BEGIN
    FOREACH name IN ARRAY '{archive_record_refusal,archive_queue,archive_ledger_head,archive_ledger_outbox,archive_ledger_body}'::text[] LOOP
        made := replace(made, '''{' || name || '}''', quote_literal(format('%I.%I', current_schema(), name)));
        made := replace(made, '{' || name || '}', format('%I.%I', current_schema(), name));
    END LOOP;
    EXECUTE made;
END $$;
CREATE TRIGGER archive_queue_refused AFTER INSERT ON archive_queue
    FOR EACH ROW WHEN (NEW.finished_at IS NOT NULL) EXECUTE FUNCTION archive_record_refusal();

REVOKE EXECUTE ON FUNCTION archive_ledger_body(archive_queue, jsonb, text), archive_ledger_file(archived_recordings), archive_ledger_files(bigint),
    archive_record_refusal() FROM PUBLIC;

-- Who was granted the queue's rows gets the same of what belongs to them.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT DISTINCT a.grantee::regrole AS role, a.privilege_type AS may FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type IN ('SELECT', 'UPDATE') AND a.grantee NOT IN (0, c.relowner) LOOP
        EXECUTE format('GRANT %s ON archive_ledger_outbox, archive_ledger_head, archive_ledger_batches, archive_ledger TO %s',
                       CASE granted.may WHEN 'SELECT' THEN 'SELECT' ELSE 'SELECT, INSERT, UPDATE, DELETE' END, granted.role);
    END LOOP;
    -- Also those that write by what was granted to all, or of all tables.
    FOR granted IN SELECT r.oid::regrole AS role FROM pg_roles r
                   WHERE NOT r.rolsuper AND has_table_privilege(r.oid, 'archive_queue', 'UPDATE')
                     AND NOT pg_has_role(r.oid, (SELECT relowner FROM pg_class WHERE oid = 'archive_queue'::regclass), 'USAGE') LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION archive_ledger_body(archive_queue, jsonb, text), archive_ledger_file(archived_recordings), '
                       'archive_ledger_files(bigint) TO %s', granted.role);
    END LOOP;
END $$;
