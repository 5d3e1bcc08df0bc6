"""Values of a listing's rows, which are hostile until read: nothing is longer, deeper or more than is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from archiver.observe.redact import redact

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_FACT = 500
_LOOKED_AT = 4 * MAX_FACT
"""Characters of a fact that are looked through for secrets: what is kept, and what a secret in it may be longer."""
_MAX_ID = 1000
"""Characters; of all rows of a stretch the identities are in memory. A session ID has 200."""
MAX_FACTS = 50


def united(values: Iterable[Any]) -> list[Any]:
    """Each once, in order, without what is empty. Of one agent all that is said of them together."""
    united: list[Any] = []
    for value in values:
        who = value.get("agentId") if isinstance(value, dict) else None
        same = [n for n, known in enumerate(united) if known == value or (who and table_of(known).get("agentId") == who)]
        if not same and value not in (None, "", [], {}):
            united.append(value)
        elif same and who:
            united[same[0]] = {**value, **united[same[0]]}
        if len(united) == MAX_FACTS:
            break
    return united


def first_text(*values: Any) -> str:
    """The first of these that is a text or a number."""
    return next((text for text in map(text_of, values) if text), "")


def shortened(identity: str) -> str:
    """What tells a row or a session from others, and is not long."""
    if len(identity) <= _MAX_ID:
        return identity
    return f"{fact_of(identity)[:200]}...{hashlib.sha256(identity.encode('utf-8', 'replace')).hexdigest()}"


def fact_of(text: str) -> str:
    """A text as it may be kept: without secrets, and short."""
    return redact(text[:_LOOKED_AT])[:MAX_FACT]


def word_of(value: Any) -> str:
    """A value as one word. Of what has an inside only what it is: that may be deeper than Python can show."""
    if isinstance(value, dict | list):
        return f"({kind_of(value)})"
    return "" if value is None else str(value)


def text_of(value: Any) -> str:
    """A value that should be a text or a number; empty for all else."""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def is_yes(value: Any) -> bool:
    """Whether a value means yes: the vendor's samples have true, 1 and "YES"."""
    return word_of(value).strip().lower() in ("yes", "true", "1")


def kind_of(value: Any) -> str:
    """What kind of JSON it is."""
    return type(value).__name__


def table_of(value: Any) -> Mapping[str, Any]:
    """An object; empty for all else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """A list; empty for all else."""
    return value if isinstance(value, list) else []


def bounded(value: Any, depth: int = 0) -> Any:
    """What may be kept of a fact: nothing secret, nothing long, nothing deep."""
    match value:
        case str():
            return fact_of(value)
        case bool() | int() | float():
            return value
        case list() if depth < 3:
            return [bounded(item, depth + 1) for item in value[:MAX_FACTS]]
        case dict() if depth < 3:
            return {fact_of(str(key)): bounded(item, depth + 1) for key, item in list(value.items())[:MAX_FACTS]}
        case _:
            return word_of(value)[:MAX_FACT]


def moment_of(value: Any) -> datetime | None:
    """A time of a listing: ISO 8601, in GMT if it has no zone, as was asked for; or Unix time, in seconds or milliseconds. None
    for what is no time of a call.
    """
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            found = EPOCH + timedelta(seconds=value if value < 1e11 else value / 1000)
        elif isinstance(value, str):
            found = datetime.fromisoformat(value.strip())
            found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return found if 1970 <= found.year < 9999 else None
