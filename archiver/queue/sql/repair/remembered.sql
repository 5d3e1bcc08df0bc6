-- What verify or repair found last of a session.
SELECT findings FROM archive_findings WHERE queue_id = :queue_id AND source = 'verify'
