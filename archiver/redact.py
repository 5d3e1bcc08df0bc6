"""Keeps secrets out of everything a person or a log can read.

Three layers, because each alone has holes: values known to be secret are replaced wherever they appear (also as a URL or JSON
spells them), shapes known to carry secrets (signed query strings, JSON web tokens, passwords in URLs) are cut by pattern, and
settings keep secrets in `SecretStr`, whose `repr` is masked.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "[redacted]"

# Each pattern is anchored by what may not stand before it, or bounded, so that no text, however hostile, takes long: redaction
# happens on the event loop. JSON may spell "//" as "\/\/" and "&" as "\u0026".
_SCHEME = r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*:(?:\\*/){2}"
_DSN = re.compile(r"(?P<head>(?<![a-z0-9+.-])postgres(?:ql)?:(?:\\*/){2}[^\s:@/]*:)\S*@", re.IGNORECASE)
_USERINFO = re.compile(rf"(?P<head>{_SCHEME}[^\s\"'<>/?#:@]*:)[^\s\"'<>/]*@", re.IGNORECASE)
_QUERY = re.compile(rf"(?P<head>{_SCHEME}[^\s\"'<>?#]*\?)[^\s\"'<>]+", re.IGNORECASE)
_TOKEN = re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{4,2000}(?:\.[A-Za-z0-9_-]*){1,4}")
_SIGNATURE = re.compile(
    r"(?P<head>(?:^|[?&\s\"']|\\u0026)"
    r"(?:s|sig|signature|x-(?:amz|goog)-(?:signature|credential|security-token))(?:=|\\u003d))(?:(?!\\u0026)[^\s&\"'<>]){4,}",
    re.IGNORECASE,
)

_known: list[str] = []


def remember_secret(value: str) -> None:
    """Have `value` masked in every later text, as it is and as URLs and JSON spell it. Shorter than 6 characters: no secret."""
    if len(value) >= 6 and value not in MASK:
        # The longest first: a secret that begins like another one would leave its end behind.
        _known[:] = sorted(_spellings(value).union(_known), key=lambda known: (-len(known), known))


def forget_secret(value: str) -> None:
    """Mask `value` no longer: it was good for hours and has been replaced, and every one remembered costs every text a look."""
    _known[:] = [known for known in _known if known not in _spellings(value)]


def _spellings(value: str) -> set[str]:
    escaped = json.dumps(value)[1:-1]
    spellings = {value, quote(value), quote(value, safe=""), quote_plus(value), escaped, escaped.replace("/", "\\/")}
    return spellings | {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), spelling) for spelling in spellings}


def redact(text: str) -> str:
    """Return `text` without secrets. Idempotent; never raises."""
    for value in _known:
        if value in text:
            text = text.replace(value, MASK)
    for pattern in (_DSN, _USERINFO):
        text = pattern.sub(rf"\g<head>{MASK}@", text)
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
