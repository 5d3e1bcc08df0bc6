"""What the platform's answers say in words: its error documents, and what of an answer is kept as evidence.

Guarantees: nothing that was asked for and is repeated in an answer counts as the platform's own word; what is shown is redacted,
harmless and bounded; transcriptions are left out.
"""

from __future__ import annotations

import json
import re
from typing import Any

from archiver.observe.redact import harmless, redact

KEPT_ANSWER = 4000
"""Characters of an answer that are kept as evidence."""

MAX_MESSAGE = 200
"""Characters of the platform's own words in an error's message."""

# The messages that the vendor documents, each whole, and their kin. Which HTTP status goes with them is said nowhere.
_RATE_LIMIT = re.compile(
    r"(Rate limit for this API has been reached"
    r"|You['\u2019]ve exceeded the (per-(second|minute|hour|day)|hourly|daily) rate limit( of [\d,]{1,12} requests)?)"
    r"\.?( (Please )?(try again later|wait for some ?time before retrying)\.?)?",
    re.IGNORECASE,
)
# Three causes share a status and a code: only the message tells them apart.
TOKEN_REFUSED = re.compile(r"Invalid JWT token\.?", re.IGNORECASE)
APP_REFUSED = re.compile(r"Invalid SDK credentials\.?", re.IGNORECASE)
SCOPE_REFUSED = re.compile(r"Permission denied\. Scope is incorrect[!.]?", re.IGNORECASE)
_ENCRYPTED = re.compile(r"\bjwe\b|encrypted|encryption", re.IGNORECASE)

_LEFT_OUT = "[left out]"
_TRANSCRIPTIONS = re.compile(rb'"transcriptions"\s*:(?!\s*"\[left out\]")')


def is_rate_limit(body: bytes) -> bool:
    """Whether an answer says that the rate limit is reached, whatever its HTTP status."""
    return any(_RATE_LIMIT.fullmatch(message) for message in _messages(body))


def demands_encryption(body: bytes) -> bool:
    """Whether a refusal says that the app enforces encrypted tokens (JWE)."""
    return any(_ENCRYPTED.search(message) for message in _messages(body))


def _messages(body: bytes) -> list[str]:
    """What the platform's error document says, or a gateway's in plain text. Nothing else of a body counts: it may repeat what it
    was asked for, and whoever chooses a session's ID must not choose what a refusal means. The documented shape is a list
    `errors` of objects with `msg`; that of other paths of the platform is documented nowhere, so their like is understood too.
    """
    if len(body) > 4 * KEPT_ANSWER:  # an error document is short; a listing need not be read once more
        return []
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return [body.decode("utf-8", "replace").strip()]
    if not isinstance(data, dict):
        return [data.strip()] if isinstance(data, str) else []
    errors = data.get("errors")
    found: list[Any] = [data, *(errors if isinstance(errors, list) else [errors])]
    found += [data[key] for key in ("error", "msg", "message") if key in data]
    found += [entry[key] for entry in found if isinstance(entry, dict) for key in ("msg", "message") if key in entry]
    return [message.strip() for message in found if isinstance(message, str)]


def first_message(body: bytes) -> str:
    """The first thing that an error document says, for people: one line, harmless, of at most MAX_MESSAGE characters."""
    found = next((message for message in _messages(_untranscribed(body)) if message and not message.startswith("<")), "")
    return harmless(redact(" ".join(found[: 4 * MAX_MESSAGE].split())))[:MAX_MESSAGE]


def with_colon(message: str) -> str:
    """To be put behind an error's own words; nothing where the platform said nothing."""
    return f": {message}" if message else ""


def as_evidence(body: bytes) -> str:
    """The answer as evidence: signed queries cut out, bounded. Transcriptions say what people said: they are no matter for
    histories and logs.
    """
    text = redact(_untranscribed(body).decode("utf-8", "replace"))
    return text if len(text) <= KEPT_ANSWER else text[:KEPT_ANSWER] + "..."


def _untranscribed(body: bytes) -> bytes:
    if not _TRANSCRIPTIONS.search(body) and b"\\u" not in body:  # JSON can spell the key with escapes, too
        return body
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict) and "transcriptions" in data:
        body = json.dumps(data | {"transcriptions": _LEFT_OUT}, ensure_ascii=False).encode("utf-8", "replace")
    # Where they end in a body that is none of the documented ones cannot be told.
    found = _TRANSCRIPTIONS.search(body)
    return body if found is None else body[: found.end()] + _LEFT_OUT.encode()


def status_of(body: bytes) -> str | None:
    """The platform's own status, if the answer has one, redacted and shortened."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    status = data.get("status") if isinstance(data, dict) else None
    return redact(status)[:200] if isinstance(status, str) else None
