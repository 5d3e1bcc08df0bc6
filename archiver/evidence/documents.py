"""What explains the evidence to whoever has the store alone: kept in it, and vouched for by the first entry."""

from __future__ import annotations

from importlib import resources


def format_text() -> bytes:
    """FORMAT.md."""
    return resources.files("archiver.evidence").joinpath("FORMAT.md").read_bytes()


def schema_text() -> bytes:
    """The JSON Schema of a session's record."""
    return resources.files("archiver.evidence").joinpath("session-v1.schema.json").read_bytes()
