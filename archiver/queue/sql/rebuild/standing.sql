-- What a database has, before it is rebuilt: one row.
SELECT EXISTS (SELECT FROM archive_queue) AS has_sessions, EXISTS (SELECT FROM archived_recordings) AS has_recordings,
       pg_has_role(current_user, (SELECT relowner FROM pg_class WHERE oid = 'archive_queue'::regclass), 'USAGE') AS owns_tables,
       (SELECT count(*) FROM archive_workers WHERE expires_at > clock_timestamp()) AS workers,
       (SELECT leased_until > clock_timestamp() FROM archive_ledger_head) IS TRUE AS is_sealing
