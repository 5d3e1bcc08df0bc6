-- Be the one sealer, or stay it, for so long. No row: another one is. A lease that ends later than any could was given before the clock was
-- set back.
UPDATE archive_ledger_head SET sealer = :sealer, leased_until = clock_timestamp() + :lease::interval
WHERE sealer IS NOT DISTINCT FROM :sealer OR leased_until < clock_timestamp()
   OR leased_until > clock_timestamp() + greatest(:lease::interval, interval '1 hour')
RETURNING leased_until
