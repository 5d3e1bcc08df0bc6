-- Whether what verify finds can be kept: by a role that may only read, or on a standby, it cannot.
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
       AND has_table_privilege('archive_findings', 'SELECT') AND has_table_privilege('archive_findings', 'INSERT')
       AND has_table_privilege('archive_findings', 'UPDATE') AND has_table_privilege('archive_findings', 'DELETE')
       AND has_table_privilege('archive_queue', 'SELECT') AND has_any_column_privilege('archive_queue', 'UPDATE')
       AND has_table_privilege('archived_recordings', 'SELECT') AND has_column_privilege('archived_recordings', 'verified_at', 'UPDATE')
       AND has_table_privilege('archive_ledger_head', 'SELECT') AND has_column_privilege('archive_ledger_outbox', 'body', 'INSERT')
       AND has_function_privilege('archive_ledger_body(archive_queue, jsonb, text)', 'EXECUTE')
       AND has_function_privilege('archive_ledger_files(bigint)', 'EXECUTE') AND has_function_privilege('archive_ledger_file(archived_recordings)', 'EXECUTE') AS can_keep
