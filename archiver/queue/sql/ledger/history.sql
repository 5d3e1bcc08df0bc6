-- What the history says of sessions up to an epoch of theirs (arrays of one length): asks, and what people did.
SELECT e.queue_id, least(greatest(e.at, '0001-01-02Z'), '9999-12-30Z') AS at, e.event, e.actor, e.data
FROM unnest(:ids::bigint[], :epochs::bigint[]) AS c (id, epoch) JOIN archive_history e ON e.queue_id = c.id AND e.epoch <= c.epoch
WHERE e.event IN ('asked', 'retried', 'cancelled', 'accepted', 'unaccepted', 'repaired', 'raised')
ORDER BY e.queue_id, e.id, e.place
