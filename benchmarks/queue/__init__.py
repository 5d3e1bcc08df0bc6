"""The archiver's queue beside two others, on one Postgres server, in one run."""
