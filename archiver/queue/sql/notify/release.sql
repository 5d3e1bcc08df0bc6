-- :sender sends no more for now; :pause from now somebody else may.
UPDATE archive_notifier SET sender = NULL, sending_until = clock_timestamp() + :pause::interval WHERE sender = :sender::uuid AND sending_until > clock_timestamp()
