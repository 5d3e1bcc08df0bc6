-- A worker's temporary file is known to be gone.
DELETE FROM archive_leftovers WHERE queue_id = :queue_id AND epoch = :epoch
