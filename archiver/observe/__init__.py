"""Logs, metrics and the redaction of both."""
