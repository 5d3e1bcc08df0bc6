"""How an attempt at a session can end, and which exceptions mean which end. Permanence is decided here, once.

The `name` of an outcome is public: the history, the log (`session_NAME`) and the counts of a worker carry it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from archiver.errors import (
    ApiDefect,
    ApiUnreachable,
    ArchiverError,
    CredentialsRejected,
    KeyConflict,
    KoreError,
    MediaHostRefused,
    MediaUnreachable,
    MediaUrlRefused,
    RateLimited,
    RecordingTooLarge,
    StoreError,
    StoreUnavailable,
    TransferError,
)
from archiver.session import State

Facts = dict[str, Any]

MAX_WAIT = timedelta(hours=1)
"""The most that a session waits for what the platform or the budget tells it to; then it asks again."""

PROXY_WAIT = timedelta(minutes=1)
"""How long a session waits whose way out is closed."""


@dataclass(frozen=True)
class Archived:
    """Every recording that the platform listed is stored and confirmed."""

    name: ClassVar[str] = "archived"


@dataclass(frozen=True)
class NotReady:
    """The call or its media are in progress. Goes back with a delay; costs no attempt."""

    name: ClassVar[str] = "not_ready"
    status: str


@dataclass(frozen=True)
class Unavailable:
    """The platform says that there is no recording. Terminal, with the answer as evidence. `final`: there can be none any more,
    it is not asked for again.
    """

    name: ClassVar[str] = "unavailable"
    reason: str
    detail: Facts = field(default_factory=dict)
    final: bool = False


@dataclass(frozen=True)
class Retry:
    """Went wrong, may work later. Counts as a failure; the last one ends the session."""

    name: ClassVar[str] = "retry"
    reason: str
    detail: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """Will not work by itself. `archiver retry` brings it back."""

    name: ClassVar[str] = "failed"
    reason: str
    detail: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class HandedBack:
    """Not the session's doing (shutdown, rate limit, rejected credentials): no counter moves."""

    name: ClassVar[str] = "handed_back"
    reason: str
    after: timedelta = timedelta(0)
    detail: Facts = field(default_factory=dict)


_IN_PROGRESS = ("call_in_progress", "media_in_progress")
_NO_RECORDING = ("media_unavailable", "not_answered", "probably_purged")
_FAILED_AT_ONCE = (
    "api_http_4xx", "conflict", "kind_not_supported", "media_host_refused", "media_url_refused", "platform_failed",
    "recording_too_large", "session_too_large", "too_many_files",
)  # fmt: skip
_RETRIED = (
    "access_denied", "access_unclear", "api_answer_changed", "api_answer_invalid", "api_answer_unreadable", "api_empty_success",
    "api_encoded", "api_http_4xx", "api_http_5xx", "api_status_unknown", "api_unreachable", "internal_error",
    "media_answer_unreadable", "media_encoded", "media_http_4xx", "media_http_5xx", "media_redirects", "media_unreachable",
    "media_url_rejected", "proxy_refused", "recording_bad_wav", "recording_empty", "recording_is_json", "recording_is_page",
    "recording_is_text", "recording_not_wav", "recording_slow", "recording_stalled", "recording_truncated", "store_refused",
    "store_unavailable",
)  # fmt: skip
_HANDED_BACK = (
    "access_unclear", "credentials_rejected", "database_unavailable", "media_host_refused", "proxy_credentials_rejected",
    "proxy_refused", "proxy_unreachable", "rate_limited", "store_unavailable", "too_many_open_files", "worker_stopped", "yielded",
)  # fmt: skip
REASONS: Mapping[str, tuple[str, ...]] = {
    State.PENDING: tuple(dict.fromkeys((*_IN_PROGRESS, *_HANDED_BACK, *_RETRIED))),
    State.ARCHIVED: ("",),
    State.UNAVAILABLE: _NO_RECORDING,
    # What could not be had of a session some of whose files are stored fails it, too.
    State.FAILED: tuple(dict.fromkeys(("not_ready", *_FAILED_AT_ONCE, *_RETRIED, *_NO_RECORDING))),
}
"""By the state that an attempt can leave a session in, every reason that this version gives for it; HTTP statuses by their first
digit. Rare others come from asking an archived or unavailable session again. A test holds it against the code.
"""

Outcome = Archived | NotReady | Unavailable | Retry | Failed | HandedBack


def facts_of(error: ArchiverError) -> Facts:
    """What the session's row keeps of an error."""
    return {"message": error.message, **error.facts} | ({"hint": error.hint} if error.hint else {})


def classify(error: Exception) -> Outcome:
    """Which end of the attempt an exception means. Total: what nobody foresaw is retried, and named `internal_error`."""
    match error:
        case RateLimited():
            return HandedBack(error.reason, after=min(error.retry_after or timedelta(0), MAX_WAIT), detail=facts_of(error))
        case CredentialsRejected():
            return HandedBack(error.reason, detail=facts_of(error))
        case (
            ApiUnreachable(reason="proxy_unreachable" | "proxy_credentials_rejected" | "proxy_refused")
            | MediaUnreachable(reason="proxy_unreachable" | "proxy_credentials_rejected")
        ):
            # Nobody gets out, whichever session it is. What the proxy refuses of media hosts may be one session's matter.
            return HandedBack(error.reason, after=PROXY_WAIT, detail=facts_of(error))
        case ApiDefect(reason="too_many_files" | "recording_too_large" | "api_http_412"):
            return Failed(error.reason, facts_of(error))
        case MediaHostRefused() | MediaUrlRefused() | RecordingTooLarge():
            return Failed(error.reason, facts_of(error))
        case KeyConflict():
            return Failed("conflict", facts_of(error))
        case StoreUnavailable():
            return Retry("store_unavailable", facts_of(error))
        case StoreError():
            return Retry("store_refused", facts_of(error))
        case ApiUnreachable() | KoreError() | TransferError():
            return Retry(error.reason, facts_of(error))
        case ArchiverError():
            return Retry("internal_error", facts_of(error))
        case _:
            return Retry("internal_error", {"message": f"{type(error).__name__} inside the archiver; its log has more"})
