-- The one row, where it was lost.
INSERT INTO archive_figures DEFAULT VALUES ON CONFLICT (one) DO NOTHING
