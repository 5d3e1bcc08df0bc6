"""JSON in one form, so that the same content has the same bytes, and times in one form.

Sorted keys (by their UTF-8 bytes), no white space, UTF-8 with nothing escaped that need not be; never NaN, infinities, duplicate
keys or halves of characters. Whatever JSON brings has such a form: nothing here raises but for a text that is no time.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from archiver.observe.redact import TOO_DEEP

MAX_DEPTH = 256
"""Levels of nesting; what lies deeper becomes a text. What the database gives is less deep."""

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)

_HALF = re.compile("[\ud800-\udfff]")

_TIME = re.compile(
    r"(?P<moment>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?)"
    r"(?P<offset>Z|[+-][0-9]{2}(?::[0-9]{2}){1,2})"
)
_ODD_TIME = re.compile(
    r"-?infinity|[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?[+-][0-9]{2}(?::[0-9]{2}){1,2}(?: BC)?"
)
"""As Postgres writes what is beyond the years 1 to 9999."""


def canonical(value: object, *, ascii_only: bool = False) -> bytes:
    """`value` as canonical JSON; with `ascii_only` every other character is escaped. Never raises."""
    try:
        text = _dumped(value, ascii_only)
        # Nothing that may be too deep, nor half a character that was escaped: by far the most are so.
        if text.count("[") + text.count("{") < MAX_DEPTH and not (ascii_only and "\\ud" in text):
            return text.encode()
    except (ValueError, TypeError, RecursionError):
        pass
    return _dumped(_cleaned(value, 0), ascii_only).encode()


def _dumped(value: object, ascii_only: bool) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)


def whole(text: str) -> str:
    """`text` with U+FFFD for each half of a character."""
    return _HALF.sub("\ufffd", text)


def _cleaned(value: Any, depth: int) -> Any:
    match value:
        case str():
            return whole(value)
        case dict() | list() | tuple() if depth == MAX_DEPTH:
            return TOO_DEEP
        case dict():
            # In one order: keys that differ in halves of characters alone become one.
            return {whole(str(key)): _cleaned(value[key], depth + 1) for key in sorted(value, key=str)}
        case list() | tuple():
            return [_cleaned(item, depth + 1) for item in value]
        case None | bool():
            return value
        case int():
            return _integer(value)
        case float() if value - value == 0:
            return value
        case _:
            return whole(str(value))


def _integer(value: int) -> int | str:
    try:
        str(value)
    except ValueError:  # Python's own limit, against conversions that take long
        return hex(value)
    return value


def utc(moment: datetime) -> str:
    """UTC, milliseconds (cut, not rounded), Z. A time without a zone is UTC; one that is out of the years 1 to 9999 there becomes
    the first or last of them.
    """
    try:
        moment = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        moment = _FIRST if moment.year == 1 else _LAST
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def utc_text(text: str) -> str:
    """A time as Postgres writes it in JSON, in the form of `utc`. What that cannot hold (infinity, years before 1 or after 9999)
    stays as Postgres writes it. Idempotent. Raises ValueError for what is no time.
    """
    if len(text) > 64:
        raise ValueError("no time")
    found = _TIME.fullmatch(text)
    if found is not None:
        moment = datetime.fromisoformat(text)
        try:
            return utc(moment.astimezone(UTC))
        except OverflowError:
            pass
    if found is None and _ODD_TIME.fullmatch(text) is None:
        raise ValueError("no time")
    return text


def moment_of(text: str) -> datetime:
    """A time in the form of `utc`, and in no other. Raises ValueError."""
    if _TIME.fullmatch(text) is None or utc(moment := datetime.fromisoformat(text)) != text:
        raise ValueError("no time in UTC with milliseconds")
    return moment
