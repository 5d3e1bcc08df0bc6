-- Roots of the tiles of the tree.
SELECT tile, root FROM archive_ledger_tiles ORDER BY tile
