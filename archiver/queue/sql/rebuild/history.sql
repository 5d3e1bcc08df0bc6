-- What records know of the history of sessions, and that these were rebuilt (:events, a list of objects). No epochs are in a record.
INSERT INTO archive_events (queue_id, event, epoch, actor, at, data)
SELECT e.queue_id, e.event, q.epoch, e.actor, coalesce(e.at, clock_timestamp()), coalesce(e.data, '{}')
FROM jsonb_to_recordset(:events::jsonb) AS e (queue_id bigint, event text, actor text, at timestamptz, data jsonb)
JOIN archive_queue q ON q.id = e.queue_id
