-- Be the archive that a store's marker names. No row: there are sessions, which are of another one unless a person says
-- :deliberately that they are not.
UPDATE archive_identity
SET archive_id = :archive_id::uuid, created_at = :created_at::timestamptz, store_marked_at = clock_timestamp(), store_url = :url
WHERE :deliberately OR NOT EXISTS (SELECT FROM archive_queue)
RETURNING archive_id
