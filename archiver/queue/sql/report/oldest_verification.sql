-- When the recording that was not read for longest was read last, or archived; no row: nothing is recorded. What others wrote there may
-- be no time of a calendar, or one that is still to come.
SELECT greatest(least(coalesce(verified_at, archived_at), statement_timestamp()), '1900-01-01Z') AS at,
       extract(epoch FROM statement_timestamp() - greatest(least(coalesce(verified_at, archived_at), statement_timestamp()), '1900-01-01Z'))::double precision AS seconds
FROM archived_recordings ORDER BY coalesce(verified_at, archived_at), queue_id, store_key LIMIT 1
