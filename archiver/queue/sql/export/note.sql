-- That these sessions were handed out.
INSERT INTO archive_events (queue_id, event, epoch, actor, data)
SELECT q.id, 'exported', q.epoch, :actor, :data::jsonb FROM archive_queue q WHERE q.id = ANY (:queue_ids::bigint[]) ORDER BY q.id
