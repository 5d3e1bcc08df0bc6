"""Which error means which end of an attempt."""

from __future__ import annotations

from datetime import timedelta

import pytest

from archiver.errors import (
    ApiDefect,
    ApiUnreachable,
    ArchiverError,
    BudgetSpent,
    CredentialsRejected,
    KeyConflict,
    MediaHostRefused,
    MediaUnreachable,
    MediaUrlExpired,
    MediaUrlRefused,
    RateLimited,
    RecordingRejected,
    StoreError,
    StoreUnavailable,
)
from archiver.outcome import Failed, HandedBack, Outcome, Retry, classify


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (RateLimited("x", retry_after=timedelta(seconds=1)), HandedBack, "rate_limited"),
        (BudgetSpent(timedelta(hours=1)), HandedBack, "rate_limited"),
        (CredentialsRejected("x"), HandedBack, "credentials_rejected"),
        (ApiUnreachable("x", reason="api_http_503"), Retry, "api_http_503"),
        (ApiDefect("x"), Retry, "api_answer_invalid"),
        (ApiDefect("x", reason="too_many_files"), Failed, "too_many_files"),
        (MediaHostRefused("x", host="h", public=True), Failed, "media_host_refused"),
        (MediaUrlRefused("x"), Failed, "media_url_refused"),
        (MediaUrlExpired("x"), Retry, "media_url_rejected"),
        (MediaUnreachable("x"), Retry, "media_unreachable"),
        (RecordingRejected("x", reason="recording_empty"), Retry, "recording_empty"),
        (KeyConflict("k", stored_sha256="a", stored_bytes=1, sha256="b", size=2), Failed, "conflict"),
        (StoreError("x"), Retry, "store_refused"),
        (StoreUnavailable("x"), Retry, "store_unavailable"),
        (ArchiverError("x"), Retry, "internal_error"),
        (ZeroDivisionError("unknown text"), Retry, "internal_error"),
    ],
)
def test_permanence_is_decided_here(error: Exception, kind: type[Outcome], reason: str) -> None:
    outcome = classify(error)
    assert isinstance(outcome, kind)
    assert not isinstance(outcome, type)
    assert getattr(outcome, "reason") == reason  # noqa: B009  # not every outcome has one
    assert "unknown text" not in repr(outcome)


def test_no_session_is_told_to_wait_for_longer_than_an_hour() -> None:
    outcome = classify(RateLimited("x", retry_after=timedelta(days=1)))
    assert isinstance(outcome, HandedBack)
    assert outcome.after == timedelta(hours=1)


def test_an_outcome_keeps_the_facts_and_the_next_step() -> None:
    outcome = classify(MediaUrlRefused("what", hint="do that", url="u"))
    assert isinstance(outcome, Failed)
    assert outcome.detail == {"message": "what", "url": "u", "hint": "do that"}
