"""What an account counts, and when nothing is left to be done."""

from __future__ import annotations

from collections.abc import Mapping

OUTCOMES = ("archived", "unavailable", "failed", "pending", "cancelled", "missing")
"""Every call that is listed is in exactly one."""

BESIDE = ("unlisted", "mismatched", "remarked", "accepted")
"""Counted beside those. `accepted`: failed or mismatched, and somebody answers for it."""

COUNTS = ("calls", *OUTCOMES, *BESIDE)


def count_open(counts: Mapping[str, int]) -> int:
    """How many calls something is to be done about."""
    left = max(0, counts.get("failed", 0) + counts.get("mismatched", 0) - counts.get("accepted", 0))
    return left + counts.get("pending", 0) + counts.get("missing", 0)
