-- How the ledger stands: one row, of nulls and zeros before it is begun. What waits is counted up to :enough.
SELECT h.origin, h.public_key, coalesce(h.published, 0) AS sealed, h.published_at, h.adopt_before IS NOT NULL AS adopts,
       (SELECT count(*) FROM (SELECT FROM archive_ledger_outbox LIMIT :enough) o) + coalesce(h.size - h.published, 0) AS waiting,
       greatest((SELECT extract(epoch FROM clock_timestamp() - at) FROM archive_ledger_outbox ORDER BY id LIMIT 1),
                (SELECT extract(epoch FROM clock_timestamp() - sealed_at) FROM archive_ledger_batches WHERE published_at IS NULL),
                0)::double precision AS seconds,
       (SELECT checkpoint FROM archive_ledger_batches WHERE published_at IS NOT NULL ORDER BY first DESC LIMIT 1) AS checkpoint
FROM (SELECT) one LEFT JOIN archive_ledger_head h ON true
