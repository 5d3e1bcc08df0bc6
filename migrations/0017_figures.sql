-- phase: expand
-- min_program: 0.2
-- required_by: 0.3
-- Figures of the whole archive, read once for the fleet however many processes show them.

CREATE TABLE archive_figures (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    at timestamptz NOT NULL DEFAULT '-infinity',
    taken_until timestamptz NOT NULL DEFAULT '-infinity',
    turn uuid,
    document jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(document) = 'object')
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
COMMENT ON TABLE archive_figures IS 'One row: the figures of the archive as they were read last. Who finds them old takes the turn to read them anew.';
COMMENT ON COLUMN archive_figures.at IS 'When they were read, by the database''s clock.';
COMMENT ON COLUMN archive_figures.taken_until IS 'Until then whoever has the turn may write them; then it is anybody''s.';
INSERT INTO archive_figures DEFAULT VALUES;

-- Who was granted the queue gets the same of what belongs to it.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT a.grantee::regrole AS role, bool_or(a.privilege_type = 'UPDATE') AS works FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_queue'::regclass AND a.privilege_type IN ('SELECT', 'UPDATE') AND a.grantee NOT IN (0, c.relowner)
                   GROUP BY a.grantee LOOP
        EXECUTE format('GRANT %s ON archive_figures TO %s', CASE WHEN granted.works THEN 'SELECT, INSERT, UPDATE' ELSE 'SELECT' END, granted.role);
    END LOOP;
END $$;
