"""Where recordings are kept. What every store guarantees, and one suite of tests holds them all to it:

- After an error, a crash or a cancellation a key holds either a whole object or nothing; never part of one.
- Nothing is ever overwritten: an equal object that exists already counts as saved, an unequal one raises KeyConflict.
- `save` returns only when the object is durable: a power cut an instant later does not take it back.
- The hash is computed on the bytes as they pass; `save` returns it together with the size that the store confirmed.
- The one temporary object of an upload has a name of its caller's choice, in the folder of its target, and is gone when the
  upload is left, however it is left. Only a killed process leaves one; `discard` removes it.
- Everything that fails is a StoreError that names the key.

Keys are relative, with `/`, without scheme or prefix. Callers make them: a store checks only that they stay inside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from archiver.config import StorageSettings
from archiver.errors import ConfigError


@dataclass(frozen=True)
class Saved:
    """What the store confirmed. `existed`: an equal object was there before, and this upload was dropped."""

    key: str
    bytes: int
    sha256: str
    existed: bool = False


class Upload(Protocol):
    """One object on its way in."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes."""

    async def save(self, key: str | None = None, *, guard: Callable[[], None] | None = None) -> Saved:
        """Make what was written durable under `key` (the one named at the start, if left out). `guard` is called in the
        last moment before the key appears, and may raise to prevent it. Raises KeyConflict, StoreUnavailable.
        """


class Store(Protocol):
    """See the module."""

    def upload(self, key: str, *, part: str) -> AbstractAsyncContextManager[Upload]:
        """Begin an object that will become `key`; `part` is the name of its temporary object, in the same folder."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """The object's bytes in order. Raises StoreError, with `missing` in its facts if there is none."""

    async def size(self, key: str) -> int | None:
        """The object's size in bytes; None if there is none."""

    async def discard(self, key: str, *, part: str) -> bool:
        """Remove the temporary object `part` from the folder of `key`. True if there was one. Never removes anything else."""

    async def check(self) -> str:
        """Write, read back and delete a small object; returns a line about the store for `doctor`. Raises StoreError."""

    async def free(self) -> int | None:
        """Bytes that are free; None where nobody can know."""


def open_store(settings: StorageSettings) -> Store:
    """The store that `storage.url` names."""
    from archiver.stores.local import LocalStore

    if settings.url.startswith("file:"):
        return LocalStore(settings.folder)
    raise ConfigError(f"storage.url = {settings.url!r}: no store for this scheme", hint="use file:///a/folder")
