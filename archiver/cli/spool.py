"""Sessions that are kept until the last of a list is judged."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from archiver.errors import ArchiverError
from archiver.queue.sessions import NewSession

IN_MEMORY = 8 << 20
"""Bytes that are kept in memory; more go to a temporary file."""


class Spool:
    """Batches in the order in which they came, in a file without a name, which nobody else can open. Its methods raise
    ArchiverError.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=in_memory)  # noqa: SIM115  # __exit__ closes it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, batch: list[NewSession]) -> None:
        """Add a batch."""
        with _explained():
            pickle.dump(batch, self._file)

    def batches(self) -> Iterator[list[NewSession]]:
        """All of them."""
        with _explained():
            self._file.seek(0)
        while True:
            try:
                with _explained():
                    batch: list[NewSession] = pickle.load(self._file)  # noqa: S301  # written above
            except EOFError:
                return
            yield batch


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArchiverError(
            f"what was read cannot be kept in a temporary file until all is judged: {error.strerror}",
            hint="nothing was enqueued; free disk space, or set TMPDIR to a folder that has some",
        ) from None
