"""The vendor: tokens, the recordings API, and where recordings may be fetched from."""
