-- Roots of the tiles of the tree (arrays of one length).
INSERT INTO archive_ledger_tiles (tile, root) SELECT * FROM unnest(:tiles::bigint[], :roots::bytea[])
ON CONFLICT (tile) DO UPDATE SET root = excluded.root
