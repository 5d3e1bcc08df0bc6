-- The database's clock: the one that counts.
SELECT clock_timestamp() AS now
