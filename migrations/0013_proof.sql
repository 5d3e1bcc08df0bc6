-- phase: expand
-- min_program: 0.2
-- When each recording was read last and held against its hash; and what a proof, and a database that was rebuilt, need of the ledger.

SET LOCAL lock_timeout = '1min';

ALTER TABLE archived_recordings ADD COLUMN verified_at timestamptz;
COMMENT ON COLUMN archived_recordings.verified_at IS 'When it was last read and held against its hash, whatever came of that; archive_findings says what. Null: not since it was archived.';
CREATE TABLE archive_ledger_tiles (
    tile bigint PRIMARY KEY,
    root bytea NOT NULL CHECK (octet_length(root) = 32)
);
COMMENT ON TABLE archive_ledger_tiles IS 'Roots of each 256 entries that follow each other, by their number: what a proof needs besides the segment of its entry. A cache: the store tells them too.';

ALTER TABLE archive_ledger_batches ADD COLUMN again integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN archive_ledger_batches.again IS 'Which claim to its place it is: a later one supersedes those of which nothing came.';
ALTER TABLE archive_ledger_head ADD COLUMN given_up bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN archive_ledger_head.given_up IS 'Up to this size something lies in the store that was given up when the database was rebuilt: no batch ends where one of that did.';

-- Who was granted the ledger gets the same of what belongs to it.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT a.grantee::regrole AS role, string_agg(a.privilege_type, ', ') AS may FROM pg_class c, aclexplode(c.relacl) a
                   WHERE c.oid = 'archive_ledger'::regclass AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                     AND a.grantee NOT IN (0, c.relowner) GROUP BY a.grantee LOOP
        EXECUTE format('GRANT %s ON archive_ledger_tiles TO %s', granted.may, granted.role);
    END LOOP;
END $$;
