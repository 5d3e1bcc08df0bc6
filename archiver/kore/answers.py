"""What the platform's answers mean: an `Answer` or a KoreError; its error documents; what of an answer is kept as evidence.

Guarantees: nothing that was asked for and is repeated in an answer counts as the platform's own word; what is shown is redacted,
harmless and bounded; transcriptions are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from archiver.errors import ApiDefect
from archiver.kore.inline import Inline
from archiver.observe.redact import harmless, redact
from archiver.session import source_name

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that are read: a thousand files need a tenth of it."""

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


@dataclass(frozen=True)
class RemoteFile:
    """One entry of an answer. `url` is signed: it is a secret, requested byte for byte, and never shown. `name` holds none."""

    ordinal: int
    name: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """What the platform said of a session. `raw` is the body, redacted and shortened. `listed` counts the files that it named;
    those that lay in the answer itself are not among `files`. `transcriptions`, of a voicemail, is as the answer has it.
    """

    status: str
    files: tuple[RemoteFile, ...]
    raw: str
    http_status: int
    listed: int = 0
    transcriptions: Any = field(default=None, repr=False)


async def _none() -> AsyncIterator[Inline]:
    nothing: tuple[Inline, ...] = ()
    for recording in nothing:
        yield recording


NO_JSON = object()
"""Stands for what cannot be read as JSON."""


@dataclass
class Reply:
    """An answer as it comes. Recordings that lie in it are taken first, one after another; what is left unread of one is read
    past. The body is there behind the last of them: `inlined` stands in it in their place; None: there can be none. What is read
    of the body is read once: nothing may ask for it before the body is whole.
    """

    http_status: int = 0
    body: bytes = b""
    inlined: list[str] | None = None
    recordings: AsyncIterator[Inline] = field(default_factory=_none)
    date: datetime | None = None
    """The API host's clock, by its Date header."""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.http_status < 300

    @cached_property
    def data(self) -> Any:
        """The JSON that the body is; NO_JSON if it is none."""
        return _json_of(self.body)

    @cached_property
    def evidence(self) -> str:
        """See `as_evidence`."""
        return as_evidence(self.body)


# In the vendor's table, and in its sample.
_VOICEMAIL_KEYS = ("voicemail_recording", "voicemail recording")

_OUR_FAULT = (
    "it calls the request itself invalid, so asking again will not help: check bots.api and bots.bot_id, and whether the session "
    "lacks the user ID that it was to be enqueued with; then `archiver retry ID`"
)


def understand(kind: str, reply: Reply, max_files: int) -> Answer:
    """What a good answer says of a session. Raises ApiDefect."""
    http_status, kept = reply.http_status, reply.evidence
    data = _object(reply)
    # Version 1 knows no statuses. Should it have one all the same, it means what it means elsewhere.
    status = data.get("status", None if reply.inlined is None else "success")
    if not isinstance(status, str):
        raise ApiDefect("the answer has no status", **_facts(reply))
    if status != "success":
        return Answer(redact(status)[:200], (), kept, http_status)
    entries = _entries(kind, data)
    if not isinstance(entries, list):
        raise ApiDefect("a success without its list of recordings", **_facts(reply))
    if not entries:
        raise ApiDefect("a success with an empty list of recordings", reason="api_empty_success", **_facts(reply))
    if len(entries) > max_files:
        raise too_many(len(entries), max_files, **_facts(reply))
    if reply.inlined is not None:
        if entries != reply.inlined:
            raise ApiDefect("not all of the recordings are data URLs", **_facts(reply))
        return Answer(status, (), kept, http_status, listed=len(entries))
    files = tuple(_remote_file(ordinal, entry, reply) for ordinal, entry in enumerate(entries, 1))
    transcriptions = data.get("transcriptions") if kind == "voicemail" else None
    return Answer(status, files, kept, http_status, listed=len(files), transcriptions=transcriptions or None)


def too_many(files: int, most: int, **facts: Any) -> ApiDefect:
    """The error of an answer with more files than a session may have."""
    return ApiDefect(
        f"{files} files in one session, more than worker.max_files_per_session = {most}",
        reason="too_many_files",
        hint="raise worker.max_files_per_session if that is right, then `archiver retry --reason too_many_files`",
        files=files,
        **facts,
    )


def _facts(reply: Reply) -> dict[str, Any]:
    said = {} if reply.ok else {"said": first_message(reply.body)}
    return {"http_status": reply.http_status, **said, "answer": reply.evidence}


def _object(reply: Reply) -> dict[str, Any]:
    """The JSON object that a good answer is. Raises ApiDefect."""
    data = parsed(reply)
    if not isinstance(data, dict):
        raise ApiDefect(f"the answer is a JSON {type(data).__name__}, not an object", **_facts(reply))
    return data


def parsed(reply: Reply) -> Any:
    """The JSON that a good answer is. Raises ApiDefect."""
    if not reply.ok:
        facts = _facts(reply)
        hint = _OUR_FAULT if reply.http_status == 412 else ""
        message = f"the platform answered HTTP {reply.http_status}{with_colon(facts['said'])}"
        raise ApiDefect(message, reason=f"api_http_{reply.http_status}", hint=hint, **facts)
    if len(reply.body) > MAX_ANSWER:
        raise ApiDefect(f"an answer of more than {MAX_ANSWER} bytes", **_facts(reply))
    if reply.data is NO_JSON:
        raise ApiDefect("the answer is not JSON", **_facts(reply))
    return reply.data


def _remote_file(ordinal: int, entry: Any, reply: Reply) -> RemoteFile:
    name = entry.get("fileName") if isinstance(entry, dict) else None
    url = entry.get("fileUrl") if isinstance(entry, dict) else None
    if not isinstance(name, str | None) or not isinstance(url, str) or not url:
        raise ApiDefect(f"entry {ordinal} of the recordings has no file name and URL", **_facts(reply))
    return RemoteFile(ordinal, source_name(name or ""), url)


def _entries(kind: str, data: dict[str, Any]) -> Any:
    """What an answer lists, by whichever of its documented names."""
    if kind != "voicemail":
        return data.get("recording")
    lists = [data[key] for key in _VOICEMAIL_KEYS if key in data]
    return next((entries for entries in lists if entries), lists[0] if lists else None)


def is_rate_limit(reply: Reply) -> bool:
    """Whether an answer says that the rate limit is reached, whatever its HTTP status."""
    return any(_RATE_LIMIT.fullmatch(message) for message in _messages(reply.body, reply.data))


def demands_encryption(reply: Reply) -> bool:
    """Whether a refusal says that the app enforces encrypted tokens (JWE)."""
    return any(_ENCRYPTED.search(message) for message in _messages(reply.body, reply.data))


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return NO_JSON


def _messages(body: bytes, data: Any) -> list[str]:
    """What the platform's error document says, or a gateway's in plain text. Nothing else of a body counts: it may repeat what it
    was asked for, and whoever chooses a session's ID must not choose what a refusal means. The documented shape is a list
    `errors` of objects with `msg`; that of other paths of the platform is documented nowhere, so their like is understood too.
    """
    if len(body) > 4 * KEPT_ANSWER:  # an error document is short
        return []
    if data is NO_JSON:
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
    body = _untranscribed(body)
    found = next((message for message in _messages(body, _json_of(body)) if message and not message.startswith("<")), "")
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
    data = _json_of(body)
    if isinstance(data, dict) and "transcriptions" in data:
        body = json.dumps(data | {"transcriptions": _LEFT_OUT}, ensure_ascii=False).encode("utf-8", "replace")
    # Where they end in a body that is none of the documented ones cannot be told.
    found = _TRANSCRIPTIONS.search(body)
    return body if found is None else body[: found.end()] + _LEFT_OUT.encode()


def status_of(reply: Reply) -> str | None:
    """The platform's own status, if the answer has one, redacted and shortened."""
    status = reply.data.get("status") if isinstance(reply.data, dict) else None
    return redact(status)[:200] if isinstance(status, str) else None
