-- This attempt failed: again after :pause, or never, where the first one was :give_up_after ago.
UPDATE archive_notifications
SET error = left(:error, 500), due_at = clock_timestamp() + :pause::interval,
    given_up_at = CASE WHEN clock_timestamp() - first_tried_at >= :give_up_after::interval THEN clock_timestamp() END
WHERE id = :id AND attempts = :attempt AND sent_at IS NULL AND given_up_at IS NULL
RETURNING given_up_at IS NOT NULL AS given_up
