"""The queue: sessions in Postgres, leased to workers."""
