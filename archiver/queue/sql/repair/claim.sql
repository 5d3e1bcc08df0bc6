-- Claim one session that was brought back in this very transaction, to settle it in the same: no worker sees it in between.
UPDATE archive_queue SET state = 'claimed', worker_id = 0, epoch = epoch + 1, claimed_at = clock_timestamp()
WHERE id = :queue_id AND epoch = :epoch AND state = 'pending'
RETURNING epoch, claimed_at
