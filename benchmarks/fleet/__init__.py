"""Proofs over a fleet of real worker processes against the simulated platform; see README.md beside this file."""
