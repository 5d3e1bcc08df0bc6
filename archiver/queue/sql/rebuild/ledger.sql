-- Which entries are about which session (arrays of one length).
INSERT INTO archive_ledger (seq, queue_id, edition)
SELECT * FROM unnest(:seqs::bigint[], :queue_ids::bigint[], :editions::integer[])
ON CONFLICT (seq) DO UPDATE SET queue_id = excluded.queue_id, edition = excluded.edition
