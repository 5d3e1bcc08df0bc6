-- Take the message that has been due for longest, if :sender may send for the fleet: it does, or nobody does; nor has one been refused a
-- moment ago, unless it is to be :at_once. The attempt counts now, so that one that nobody sees the end of is known of. One that is due
-- later than any pause was put there by a clock that was wrong.
WITH next AS MATERIALIZED (
    SELECT id FROM archive_notifications
    WHERE sent_at IS NULL AND given_up_at IS NULL AND due_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + :longest_pause::interval
    ORDER BY due_at, id LIMIT 1
), lease AS (
    UPDATE archive_notifier n SET sender = :sender::uuid, sending_until = clock_timestamp() + :lease::interval
    FROM next
    WHERE n.sender = :sender OR (n.sender IS NULL AND :at_once::boolean) OR n.sending_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + :lease
    RETURNING next.id
)
UPDATE archive_notifications m
SET attempts = attempts + 1, first_tried_at = coalesce(first_tried_at, clock_timestamp()), due_at = clock_timestamp() + :lease
FROM lease WHERE m.id = lease.id AND m.sent_at IS NULL AND m.given_up_at IS NULL
  AND m.due_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + :longest_pause
RETURNING m.id, m.matter, m.event, m.payload, m.created_at, m.attempts, (SELECT archive_id FROM archive_identity) AS archive_id
