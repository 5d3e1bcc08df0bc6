"""Filling a database from what the store knows of it: see `whole`."""
