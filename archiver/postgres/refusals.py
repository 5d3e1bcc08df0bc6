"""What the driver and the network raise, as errors of ours: translated at the edge, redacted, with the next step."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import asyncpg

from archiver.errors import ConfigError, DatabaseError, DatabaseUnreachable, NotMigrated
from archiver.postgres.tls import tls_refused

UNREACHABLE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says whose end arrived between two statements
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    # Not what we say, but when: rows that others have locked.
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
)


_WRITABLE = (
    "let database.url lead to the primary (it may list several hosts: the one that takes writes is used); where a server or "
    "role is read-only (default_transaction_read_only, as services set it when a disk is full), look why"
)

_GRANT = (
    "have the owner run `archiver migrate`, or grant it a role of `archiver roles` (docs/roles.md: which command needs which)"
)


@contextmanager
def translated(key: str = "database.url", role: Callable[[], str] = str) -> Iterator[None]:
    """Turn what asyncpg and the network raise into our errors, redacted. `key`: where the connection leads; `role`: as whom."""
    try:
        with tls_refused(key):
            yield
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError) as error:
        raise NotMigrated(f"the database lacks what this version needs: {error}") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseError(f"the database refused: {error} (role {role() or 'unknown'})", hint=_GRANT) from None
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise DatabaseUnreachable(f"the database refused this user: {error}") from None
    except asyncpg.InvalidCatalogNameError as error:
        raise DatabaseUnreachable(f"{error}", hint="create the database, or correct database.url") from None
    except (asyncpg.ReadOnlySQLTransactionError, asyncpg.TargetServerAttributeNotMatched):
        raise DatabaseUnreachable("the database takes no writes: it is a standby, or read-only", hint=_WRITABLE) from None
    except asyncpg.InvalidCachedStatementError:  # in a transaction: elsewhere the driver runs such a statement again
        raise DatabaseUnreachable("the tables were changed in the middle of a transaction", hint="run this again") from None
    except UNREACHABLE as error:
        # What the driver says of its own state helps nobody.
        text = "the connection broke" if isinstance(error, asyncpg.InternalClientError) else str(error) or type(error).__name__
        hint = f"check {key}, that the server runs, and that it accepts this user"
        if "unsupported startup parameter" in text:  # pgbouncer's words
            hint = "leave it out of the URL, or name it in pgbouncer's ignore_startup_parameters"
        raise DatabaseUnreachable(f"the database cannot be reached: {text}", hint=hint) from None
    except asyncpg.UndefinedObjectError as error:
        hint = f"leave it out of {key}" if "configuration parameter" in str(error) else ""
        raise DatabaseError(f"the database refused: {error}", hint=hint) from None
    except asyncpg.PostgresError as error:
        raise DatabaseError(f"the database refused: {error}") from None


@contextmanager
def connecting(key: str) -> Iterator[None]:
    """`translated`, and what is wrong with the URL itself. Its text is never quoted: what follows a `/` or `:` in a password
    that is not percent-encoded is taken for a port or a host, and would be shown.
    """
    with translated(key):
        try:
            yield
        except ssl.SSLError:
            raise  # some of these are ValueErrors, too
        except (ValueError, OverflowError) as error:
            about_sslmode = isinstance(error, asyncpg.ClientConfigurationError) and "sslmode" in str(error)
            raise ConfigError(
                f"{key}: {error if about_sslmode else 'must be a Postgres URL'}",
                hint="a Postgres URL with special characters of user and password percent-encoded, or embedded:PATH",
            ) from None
