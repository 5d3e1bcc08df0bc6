-- Whether there is something to seal or to publish: how much, at most :enough, and for how long the first has waited.
SELECT count(*) AS rows, coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::double precision AS seconds,
       EXISTS (SELECT FROM archive_ledger_batches WHERE published_at IS NULL) AS unpublished
FROM (SELECT id, at FROM archive_ledger_outbox ORDER BY id LIMIT :enough) o
