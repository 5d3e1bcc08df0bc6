-- Files and bytes in the archive.
SELECT count(*) AS files, coalesce(sum(bytes), 0)::bigint AS bytes FROM archived_recordings
