-- Wait for every statement that is changing sessions, and let no other begin until this transaction ends.
LOCK TABLE archive_queue IN SHARE MODE
