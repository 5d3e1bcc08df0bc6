-- $1 queue ID, $2 epoch
DELETE FROM archive_leftovers WHERE queue_id = $1 AND epoch = $2
