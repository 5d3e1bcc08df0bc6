-- The receiver has it, by this attempt.
UPDATE archive_notifications SET sent_at = clock_timestamp(), error = NULL
WHERE id = :id AND attempts = :attempt AND sent_at IS NULL AND given_up_at IS NULL
RETURNING id
