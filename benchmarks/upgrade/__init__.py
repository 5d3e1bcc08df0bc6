"""How long producers and workers wait while the tables below them are migrated."""
