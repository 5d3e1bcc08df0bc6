-- Those of :keys that no recorded file has.
SELECT key FROM unnest(:keys::text[]) AS k (key) WHERE NOT EXISTS (SELECT FROM archived_recordings r WHERE r.store_key = k.key)
