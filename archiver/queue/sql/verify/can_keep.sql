-- Whether what verify finds can be kept: by a role that may only read, or on a standby, it cannot.
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off'
       AND has_table_privilege('archive_findings', 'SELECT') AND has_table_privilege('archive_findings', 'INSERT')
       AND has_table_privilege('archive_findings', 'UPDATE') AND has_table_privilege('archive_findings', 'DELETE')
       AND has_table_privilege('archive_queue', 'SELECT') AS can_keep
