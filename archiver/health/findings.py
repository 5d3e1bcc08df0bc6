"""What a check of `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archiver.errors import ArchiverError


@dataclass(frozen=True)
class Finding:
    """One line of `doctor`. `hint` is the next step."""

    check: str
    verdict: Literal["ok", "warning", "failure"]
    message: str
    hint: str = ""


def of_error(check: str, error: ArchiverError) -> Finding:
    """A check that failed with an error of ours."""
    return Finding(check, "failure", error.message, error.hint)
