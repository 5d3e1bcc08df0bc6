"""How many files and connections this process may have open, and how many sessions at once fit into that."""

from __future__ import annotations

import errno
import os
import resource

BASE = 32
"""What a worker has open whatever it works on: streams, event loop, listener, metrics, libraries that are loaded."""

PER_SESSION = 5
"""A session's: connections to the API and to the media host, its file, the folder of that, and one for a moment."""

PER_BOT = 2
"""Connections that stay open for a while."""

POOLED = 12
SPARE = 4

RAISE_FILES = (
    "raise the limit of open files: LimitNOFILE= of a systemd unit, --ulimit nofile= of a container, `nofile` in "
    "/etc/security/limits.conf"
)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE)


def pool_size(concurrency: int) -> int:
    """Connections to the database that a worker has use for."""
    return min(concurrency, POOLED) + SPARE


def files_needed(concurrency: int, bots: int) -> int:
    """Files that a worker with so many sessions at once may have open."""
    return BASE + PER_BOT * bots + pool_size(concurrency) + PER_SESSION * concurrency


def files_allowed() -> int | None:
    """How many this process may have open; None: any number."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def fitting_concurrency(concurrency: int, bots: int) -> int:
    """At most `concurrency` sessions at once, as many as fit; 0 if none does."""
    allowed = files_allowed()
    if allowed is None:
        return concurrency
    while concurrency and files_needed(concurrency, bots) > allowed:
        concurrency -= 1
    return concurrency


def files_exhausted(error: BaseException | None) -> bool:
    """Whether an error came of having no more files to open, whatever it says of others: a host name, for example, cannot be
    resolved without one.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            return True
        error = getattr(error, "os_error", None) or error.__cause__ or error.__context__
    try:
        os.close(os.dup(0))
    except OSError as refused:
        return refused.errno in _EXHAUSTED
    return False
