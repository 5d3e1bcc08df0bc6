-- phase: expand
-- min_program: 0.2
-- required_by: 0.3
-- What is to be told to a receiver of the operator's, written down before it is sent: so it is told once the receiver is there again.

CREATE TABLE archive_notifications (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    matter text NOT NULL UNIQUE,
    event text NOT NULL,
    covers text[] NOT NULL DEFAULT '{}',
    payload jsonb NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts integer NOT NULL DEFAULT 0,
    first_tried_at timestamptz,
    error text,
    sent_at timestamptz,
    given_up_at timestamptz,
    CONSTRAINT archive_notifications_end CHECK (sent_at IS NULL OR given_up_at IS NULL)
);
COMMENT ON TABLE archive_notifications IS 'Messages to the receiver that [notify] names: one a matter, sent again until it is accepted or given up.';
COMMENT ON COLUMN archive_notifications.matter IS 'What it is of, so that it is told once; the message''s own ID is made of it.';
COMMENT ON COLUMN archive_notifications.covers IS 'Matters that it tells together.';
COMMENT ON COLUMN archive_notifications.attempts IS 'Counted before each is made: one that nobody saw the end of counts.';
COMMENT ON COLUMN archive_notifications.error IS 'What came of the last one, if it failed.';
CREATE INDEX archive_notifications_due ON archive_notifications (due_at, id) WHERE sent_at IS NULL AND given_up_at IS NULL;

CREATE TABLE archive_notifier (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    floors jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(floors) = 'object'),
    collected_at timestamptz NOT NULL DEFAULT '-infinity',
    accounts_seen bigint[] NOT NULL DEFAULT '{}',
    damage_told bigint,
    damage_told_at timestamptz,
    settings text,
    sender uuid,
    sending_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50);
COMMENT ON TABLE archive_notifier IS 'One row: from when on what is told, and who of the fleet sends it.';
COMMENT ON COLUMN archive_notifier.floors IS 'By event, when it was switched on first: nothing that was before is told.';
COMMENT ON COLUMN archive_notifier.accounts_seen IS 'Of the latest accounts, those that were looked through.';
COMMENT ON COLUMN archive_notifier.damage_told IS 'How many damaged sessions were told of last; null: none is open that was.';
COMMENT ON COLUMN archive_notifier.settings IS 'A hash of where who collected last sends to, and what: who has others says so.';
INSERT INTO archive_notifier DEFAULT VALUES;

-- Who was granted the queue gets the same of what belongs to it.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT a.grantee::regrole AS role, bool_or(a.privilege_type = 'UPDATE') AS works FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type IN ('SELECT', 'UPDATE') AND a.grantee NOT IN (0, c.relowner)
                   GROUP BY a.grantee LOOP
        EXECUTE format('GRANT %s ON archive_notifications TO %s', CASE WHEN granted.works THEN 'SELECT, INSERT, UPDATE, DELETE' ELSE 'SELECT' END, granted.role);
        EXECUTE format('GRANT %s ON archive_notifier TO %s', CASE WHEN granted.works THEN 'SELECT, UPDATE' ELSE 'SELECT' END, granted.role);
    END LOOP;
END $$;
