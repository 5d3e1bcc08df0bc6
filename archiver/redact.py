"""Keeps secrets out of everything a person or a log can read.

Three layers, because each alone has holes: values known to be secret are replaced wherever they appear (also percent-encoded),
shapes known to carry secrets (signed query strings, JSON web tokens, passwords in URLs) are cut by pattern, and settings keep
secrets in `SecretStr`, whose `repr` is masked.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

MASK = "[redacted]"

_QUERY = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s\"'<>?#]*\?)[^\s\"'<>]+", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s\"'<>/?#:@]*:)[^\s\"'<>/]*@", re.IGNORECASE)
_TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*){1,4}")
_SIGNATURE = re.compile(
    r"(?P<head>(?:^|[?&\s\"'])(?:s|sig|signature|x-amz-signature|x-amz-credential|x-amz-security-token)=)[^\s&\"'<>]{4,}",
    re.IGNORECASE,
)

_known: set[str] = set()


def remember_secret(value: str) -> None:
    """Have `value` masked in every later text, as it is and percent-encoded; shorter than 6 characters is not a secret."""
    if len(value) >= 6:
        _known.update({value, quote(value, safe="")})


def redact(text: str) -> str:
    """Return `text` without secrets. Idempotent; never raises."""
    for value in _known:
        if value in text:
            text = text.replace(value, MASK)
    text = _USERINFO.sub(rf"\g<head>{MASK}@", text)
    text = _QUERY.sub(rf"\g<head>{MASK}", text)
    text = _TOKEN.sub(MASK, text)
    return _SIGNATURE.sub(rf"\g<head>{MASK}", text)


def redact_value(value: Any) -> Any:
    """`redact` for whatever JSON can hold: strings anywhere inside, keys left alone."""
    match value:
        case str():
            return redact(value)
        case dict():
            return {key: redact_value(item) for key, item in value.items()}
        case list() | tuple():
            return [redact_value(item) for item in value]
        case _:
            return value
