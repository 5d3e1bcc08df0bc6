-- What there is one of for the whole archive: by whose clock, living workers, the version of the tables, for how long the first of what
-- is not sealed yet has waited (null: no ledger was begun), and the configured bots' holds.
SELECT clock_timestamp() AS at,
       (SELECT count(*) FROM archive_workers WHERE expires_at > clock_timestamp()) AS workers,
       (SELECT max(version) FROM archive_migrations) AS schema_version,
       (SELECT greatest((SELECT extract(epoch FROM clock_timestamp() - at) FROM archive_ledger_outbox ORDER BY id LIMIT 1),
                        (SELECT extract(epoch FROM clock_timestamp() - sealed_at) FROM archive_ledger_batches WHERE published_at IS NULL),
                        0)
        FROM archive_ledger_head)::double precision AS unsealed,
       (SELECT coalesce(jsonb_agg(jsonb_build_object('bot', h.bot, 'kind', h.kind, 'reason', h.reason) ORDER BY h.bot, h.kind), '[]')
        FROM archive_holds h JOIN archive_bots b ON b.name = h.bot AND b.configured) AS holds
