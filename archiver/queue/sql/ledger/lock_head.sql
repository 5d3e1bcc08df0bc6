-- The head, locked until the transaction ends, if :sealer is still the one sealer and nothing waits to be published.
SELECT origin, public_key, signers, size, root, frontier, published, published_at, begun_at, adopt_before IS NOT NULL AS adopts, given_up
FROM archive_ledger_head
WHERE sealer = :sealer AND leased_until > clock_timestamp() AND NOT EXISTS (SELECT FROM archive_ledger_batches WHERE published_at IS NULL)
FOR UPDATE
