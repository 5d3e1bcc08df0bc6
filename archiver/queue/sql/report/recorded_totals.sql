-- Files, bytes and seconds of sound in the archive.
SELECT coalesce(sum(files), 0)::bigint AS files, coalesce(sum(bytes), 0)::bigint AS bytes,
       coalesce(sum(milliseconds), 0)::float8 / 1000 AS seconds
FROM archive_counts
