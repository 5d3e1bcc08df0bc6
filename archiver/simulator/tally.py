"""The report's counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class ApiTally:
    """Calls of the recordings API, however they ended."""

    calls: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    """How each call ended, one entry a call, so that the sum is `calls`: the status of the platform's own answers, else
    "unauthorized", "rate_limited", "unknown_bot", "bad_request", "http_503", "raw", "reset" or "hang"."""
    by_session: Counter[str] = field(default_factory=Counter)
    """Calls per session that got past authentication and the rate limits, to the session's script."""
    user_ids: dict[str, str] = field(default_factory=dict)
    """The `userId` last sent for a session, where one was."""
    unauthorized: int = 0
    last_refusal: str = ""
    """Why the last call that was refused for its token, its bot, its scope or its fields was, which the answer doesn't say."""
    rate_limited: int = 0
    unknown_sessions: int = 0
    authorization_header_seen: int = 0

    def as_json(self, most_in_window: dict[str, int]) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "by_status": dict(self.by_status),
            "by_session": dict(self.by_session),
            "user_ids": dict(self.user_ids),
            "unauthorized": self.unauthorized,
            "last_refusal": self.last_refusal,
            "rate_limited": self.rate_limited,
            "unknown_sessions": self.unknown_sessions,
            "authorization_header_seen": self.authorization_header_seen,
            "max_in_window": most_in_window,
        }


@dataclass(slots=True)
class MediaTally:
    """Requests to the media origin."""

    requests: int = 0
    body_bytes: int = 0
    """Bytes of bodies handed to the network, error pages included."""
    complete: int = 0
    """Answers that sent a recording to its end: whole, or (206) its last part."""
    altered_urls: int = 0
    expired_urls: int = 0
    leaked_auth: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    """HTTP status of each answer; "reset" where the connection was reset before one."""

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.requests,
            "bytes": self.body_bytes,
            "complete": self.complete,
            "altered_urls": self.altered_urls,
            "expired_urls": self.expired_urls,
            "leaked_auth": self.leaked_auth,
            "by_status": dict(self.by_status),
        }


@dataclass(slots=True)
class ListingsTally:
    """Requests for the listings, however they ended."""

    get_sessions: int = 0
    call_details: int = 0
    interaction_details: int = 0
    refused: int = 0
    """Answered 412, or 400 for the account of others."""
    unauthorized: int = 0
    """Answered 401, or 403 for a scope that is missing; an unknown bot is not among them."""
    last_refusal: str = ""
    """As in `ApiTally`."""
    rate_limited: int = 0
    rows: int = 0
    """Calls in all answers together, one that was listed twice counted twice."""

    def as_json(self, most_in_window: dict[str, int]) -> dict[str, Any]:
        return {
            "get_sessions": self.get_sessions,
            "call_details": self.call_details,
            "interaction_details": self.interaction_details,
            "refused": self.refused,
            "unauthorized": self.unauthorized,
            "last_refusal": self.last_refusal,
            "rate_limited": self.rate_limited,
            "rows": self.rows,
            "max_in_window": most_in_window,
        }
