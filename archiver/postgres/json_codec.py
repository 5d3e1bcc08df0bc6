"""JSON on its way to Postgres and back: what one side cannot hold is replaced, and never an error."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from archiver.observe.redact import MAX_DEPTH, TOO_DEEP

_STEP = re.compile(r'[\[\]{}]|"(?:[^"\\]|\\.)*"?')
"""What changes the level in JSON, and strings, in which nothing does."""

_LONG_NUMBER = re.compile(r"(?<![0-9])[0-9]{309}")
"""Digits of which no float can be made; of some more no integer, either."""


def _storable(value: Any, depth: int = 0) -> Any:
    """JSON that Postgres takes: it refuses NUL, half surrogates, NaN and deep nesting, which hostile answers may hold."""
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
        case dict() | list() | tuple() if depth == MAX_DEPTH:
            return TOO_DEEP
        case dict():
            return {_storable(key): _storable(item, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [_storable(item, depth + 1) for item in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def to_json(value: Any) -> str:
    """JSON that Postgres takes, whatever hostile answers hold."""
    if isinstance(value, list):
        # Each by itself: what one of many holds costs the others nothing.
        return f"[{', '.join(map(_json_of, value))}]"
    return _json_of(value)


def _json_of(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps(_storable(value, 1))
    # Nothing that may be wrong: by far the most are so.
    plain = "\\u0000" not in text and "\\ud" not in text and text.count("[") + text.count("{") < MAX_DEPTH
    return text if plain else json.dumps(_storable(value, 1))


def from_json(text: str) -> Any:
    """JSON as Postgres gives it. A producer's may be nested deeper than Python reads, and have numbers longer than it takes: what
    is too deep is cut off, and such numbers become text.
    """
    if text.count("[") + text.count("{") > 2 * MAX_DEPTH:
        text = _cut_to_depth(text)
    if len(text) < 309 or _LONG_NUMBER.search(text) is None:
        return json.loads(text)
    return json.loads(text, parse_int=_integer, parse_float=_float)


def _cut_to_depth(text: str) -> str:
    """What lies deeper than anything of ours, which is MAX_DEPTH deep in some document, becomes a text."""
    kept: list[str] = []
    depth, since = 0, 0
    for match in _STEP.finditer(text):
        if match[0] in ("[", "{"):
            if depth == 2 * MAX_DEPTH:
                kept.append(text[since : match.start()])
            depth += 1
        elif match[0] in ("]", "}"):
            depth -= 1
            if depth == 2 * MAX_DEPTH:
                kept.append(json.dumps(TOO_DEEP))
                since = match.end()
    return "".join(kept) + text[since:]


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # Python's own limit, against conversions that take long
        return digits


def _float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits
