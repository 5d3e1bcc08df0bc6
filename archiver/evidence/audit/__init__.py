"""The audit: store and database, held against the sealed ledger."""
