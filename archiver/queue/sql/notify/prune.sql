-- Messages that ended :keep ago go, a few at a time.
DELETE FROM archive_notifications
WHERE id IN (SELECT id FROM archive_notifications WHERE created_at < clock_timestamp() - :keep::interval
             AND (sent_at IS NOT NULL OR given_up_at IS NOT NULL) ORDER BY id LIMIT 1000)
