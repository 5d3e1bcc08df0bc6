-- Nobody moves these sessions, nor writes what is wrong with them, until this is committed.
SELECT id FROM archive_queue WHERE id = ANY (:ids::bigint[]) ORDER BY id FOR NO KEY UPDATE
