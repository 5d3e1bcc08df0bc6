"""What a value of the configuration can be: durations, sizes, rate limits, files with secrets."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)

from archiver.errors import ConfigError
from archiver.observe.redact import MASK, remember_secret

_LONGEST = timedelta(days=36525)
"""A century: what Postgres can still add to a date."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> timedelta:
    """`"500ms"`, `"2s"`, `"15m"`, `"24h"`, `"7d"`; a bare number is seconds. Never negative. Raises ValueError."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", str(value).strip())
    if match is None:
        raise ValueError(
            "must be a number and a unit of time, such as 500ms, 30s, 15m, 24h or 90d; write months and years in days"
        )
    seconds = float(match[1]) * _UNITS[match[2] or "s"]
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"must be at most {_LONGEST.days}d")
    return timedelta(seconds=seconds)


_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_size(value: object) -> int:
    """`"256MiB"`, `"50MB"`, `"64KiB"`; a bare number is bytes. Never negative. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMG]i?B|B|)", str(value).strip())
    if match is None or (isinstance(value, bool)):
        raise ValueError("must be a number and a unit of bytes, such as 64KiB, 50MB or 1GiB")
    return int(float(match[1]) * _SIZES[match[2]])


def size_or_none(value: object) -> int | None:
    """A size; empty or 0 is none."""
    return None if value in (None, "") else parse_size(value) or None


def _retention(value: object) -> timedelta | None:
    """How long something is kept; empty is none. A day at least: a slip of the unit must not empty a history."""
    if value in (None, ""):
        return None
    duration = parse_duration(value)
    if duration < timedelta(days=1):
        raise ValueError('must be at least "1d", or empty; write days with their unit, such as "90d"')
    return duration


def _listed(value: object) -> object:
    """One string for a list of strings, as it comes from the environment."""
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    return value


Duration = Annotated[timedelta, PlainValidator(parse_duration)]
Retention = Annotated[timedelta | None, PlainValidator(_retention)]


_WINDOWS = {
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}


@dataclass(frozen=True, order=True)
class RateLimit:
    """At most `calls` in any `window`."""

    window: timedelta
    calls: int

    @classmethod
    def parse(cls, value: object) -> RateLimit:
        """`"60/minute"`; second, minute, hour or day. Raises ValueError."""
        if isinstance(value, RateLimit):
            return value
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(second|minute|hour|day)\s*", str(value))
        if match is None or int(match[1]) == 0:
            raise ValueError('must be a number of calls and a time, such as "60/minute": second, minute, hour or day')
        return cls(window=_WINDOWS[match[2]], calls=int(match[1]))

    def __str__(self) -> str:
        return f"{self.calls}/{next(unit for unit, window in _WINDOWS.items() if window == self.window)}"


Size = Annotated[int, PlainValidator(parse_size)]
"""Bytes."""

SizeOrNone = Annotated[int | None, PlainValidator(size_or_none)]
RateLimits = Annotated[
    tuple[Annotated[RateLimit, PlainValidator(RateLimit.parse)], ...] | None,
    BeforeValidator(lambda value: None if value == "" else _listed(value)),
]
"""Not written is None, and so is an empty text, which the environment takes one away with; an empty list is no limit at all."""
Durations = Annotated[tuple[Duration, ...], BeforeValidator(_listed)]
Strings = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _path(value: object) -> object:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must be a text file, and no path has a NUL in it")
    return value or None


File = Annotated[Path | None, BeforeValidator(_path)]
"""A path; an empty one is none, so that the environment can take one away."""


def is_loopback(host: str) -> bool:
    """Whether a host names this machine by itself, without asking a name server."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        # Some Pythons look at the address within by themselves, some don't.
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback
    except ValueError:
        return False


HOST = r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?"
"""A name that can be looked up: what has another shape has none, and looking it up fails in ways of its own."""

ORIGIN = re.compile(
    rf"(?P<scheme>https?)://(?P<host>{HOST}|\[[0-9a-f:.]+\])"
    r"(:(?P<port>[0-9]{1,5}))?(/[a-z0-9._~-]+)*/?",
    re.IGNORECASE,
)
"""The URL of a server, as a bot or a store names it."""


def parse_origin(value: str, expected: str) -> str:
    """The URL of a server, without a slash at its end. Raises ValueError with the text `expected` for anything else."""
    found = ORIGIN.fullmatch(value)
    if found is None or int(found["port"] or 443) not in range(1, 65536):
        raise ValueError(expected)
    return value.rstrip("/")


def crosses_openly(url: str) -> bool:
    """Whether what is sent there leaves this machine unencrypted."""
    at = urlsplit(url)
    return at.scheme == "http" and not is_loopback(at.hostname or "")


class Section(BaseModel):
    """A section of the configuration: no unknown keys, nothing that changes, and no value in an error's own words. Its schema is
    built when it is first needed: each section's own would cost every command time, and the whole configuration's contains them.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True, defer_build=True
    )


ALL_DEFAULTS: Any = Field(default_factory=dict, validate_default=True)
"""Of a section that may be left out: made by the schema of what contains it, so that its own need not be built."""


def without_user(text: str) -> str:
    """Without what stands before an `@`, as user and password do in a URL, save its scheme."""
    head, at, tail = text.rpartition("@")
    scheme, slashes, _ = head.rpartition("://")
    return f"{scheme}{slashes}{MASK}@{tail}" if at else text


def existing_part(path: Path) -> Path:
    """As much of a path as exists: what does not may be no path, but the secret itself."""
    return next((part for part in (path, *path.parents) if os.path.exists(part)), Path("/"))  # noqa: PTH110  # Path.exists raises for names too long


def read_secret(key: str, path: Path) -> str:
    """The secret that a file holds, read now, and masked from then on. Raises ConfigError that names `key`."""
    try:
        secret = path.read_text(encoding="utf-8-sig").strip()
    except ValueError:
        # Not UTF-8, or a path with NUL.
        raise ConfigError(
            f"{key}: {existing_part(path)} must be a text file", hint="write the secret into it as UTF-8 text"
        ) from None
    except OSError as error:
        if (found := existing_part(path)) != path:
            raise ConfigError(
                f"{key}: must be the path of a file that holds the secret: No such file below {found}",
                hint="create the file, and let archiver's user read it; or correct its path",
            ) from None
        raise ConfigError(
            f"{key}: {path} must be a file that holds the secret: {error.strerror}",
            hint="create the file, and let archiver's user read it; or correct its path",
        ) from None
    if not secret:
        raise ConfigError(f"{key}: {path} must hold the secret, and is empty", hint="write the secret into it")
    remember_secret(secret)
    return secret
