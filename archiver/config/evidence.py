"""How the archive proves itself: the key that seals its ledger, and what an audit believes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator

from archiver.config.values import Duration, File, Section, Strings

ORIGIN = re.compile(r"[a-z0-9][a-z0-9./_-]{0,99}")
"""The name of an archive's ledger."""

FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]")
"""Of a key, as `ssh-keygen -l` writes it."""


class EvidenceSettings(Section):
    """The ledger. Without `key_file` nothing is sealed. The file is read when something is: one that cannot be read stops no
    archiving.
    """

    key_file: File = None
    origin: str = ""
    interval: Duration = timedelta(minutes=5)
    patience: Duration = timedelta(days=7)
    trusted: Strings = ()
    adopt_per_minute: Annotated[int, Field(ge=0, le=1_000_000)] = 600

    @field_validator("origin")
    @classmethod
    def _named(cls, value: str) -> str:
        if value and not ORIGIN.fullmatch(value):
            raise ValueError(
                'must be a name of at most 100 of a-z, 0-9, ".", "/", "_" and "-" that begins with a letter or digit, such as '
                '"archive.example.com/calls"; leave it empty for a random one'
            )
        return value

    @field_validator("interval")
    @classmethod
    def _not_at_once(cls, value: timedelta) -> timedelta:
        if value < timedelta(seconds=1):
            raise ValueError('must be at least "1s", such as "5m": every batch costs a handful of objects in the store')
        return value

    @field_validator("trusted")
    @classmethod
    def _fingerprints(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not FINGERPRINT.fullmatch(each) for each in value):
            raise ValueError('must be fingerprints as `ssh-keygen -l` writes them, "SHA256:" and 43 characters each')
        return value
