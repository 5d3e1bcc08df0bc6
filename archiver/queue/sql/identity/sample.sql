-- Some recorded files, of the first sessions and of the last ones: :each of both.
SELECT r.store_key, r.bytes FROM (
    (SELECT queue_id, store_key, bytes FROM archived_recordings ORDER BY queue_id DESC LIMIT :each::integer)
    UNION
    (SELECT queue_id, store_key, bytes FROM archived_recordings ORDER BY queue_id LIMIT :each::integer)
) r ORDER BY r.queue_id, r.store_key
