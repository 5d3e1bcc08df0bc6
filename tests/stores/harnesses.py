"""Stores under test, each with a view of it from outside."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from archiver.config import StorageSettings
from archiver.runtime.buffers import Buffers
from archiver.stores import Saved, Store
from archiver.stores.azure.access import access_of
from archiver.stores.azure.driver import open_azure
from archiver.stores.bucket.store import BucketStore
from archiver.stores.local.store import LocalStore
from archiver.stores.s3.driver import open_s3
from tests.azure_servers import CONTAINER, AzureServer, Folder
from tests.s3_servers import BUCKET, Prefix, S3Server
from tests.stores.memory import MemoryStore

BUFFER = 64 * 1024 * 1024
MEGABYTE = 1024 * 1024

_numbers = itertools.count()


class StoreHarness(Protocol):
    """A store under test, with a view of it from outside."""

    store: Store
    peak: int
    """Bytes of memory that an upload, however long, must not exceed; 0 where the store itself is memory."""

    def objects(self) -> set[str]:
        """Every object that lies in it, temporary ones and uploads in parts included."""

    def put(self, key: str, data: bytes) -> None:
        """Lay an object there behind its back."""

    def get(self, key: str) -> bytes:
        """What lies there."""

    def remove(self, key: str) -> None:
        """Take it away."""


class LocalHarness:
    """A folder."""

    peak = 8 * MEGABYTE

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store: Store = LocalStore(root, Buffers(BUFFER))

    def objects(self) -> set[str]:
        return {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def remove(self, key: str) -> None:
        (self.root / key).unlink()


class MemoryHarness:
    """The reference."""

    peak = 0

    def __init__(self) -> None:
        self._store = MemoryStore(Buffers(BUFFER))
        self.store: Store = self._store

    def objects(self) -> set[str]:
        return set(self._store.objects)

    def put(self, key: str, data: bytes) -> None:
        self._store.objects[key] = data

    def get(self, key: str) -> bytes:
        return self._store.objects[key]

    def remove(self, key: str) -> None:
        del self._store.objects[key]


class S3Harness(Prefix):
    """A prefix of a bucket, this test's own."""

    peak = BUFFER + 8 * MEGABYTE

    def __init__(self, store: BucketStore, server: S3Server, bucket: str) -> None:
        super().__init__(server, store.objects.prefix, bucket)
        self.s3 = store
        self.store: Store = store


@asynccontextmanager
async def s3_harness(server: S3Server, *, bucket: str = BUCKET, buffer: int = BUFFER, **keys: object) -> AsyncIterator[S3Harness]:
    """A store there, with the least parts that S3 takes; `keys` as in [storage.s3]."""
    settings = StorageSettings.model_validate(
        {"url": f"s3://{bucket}/{new_prefix()}", "s3": {**server.keys, "part_size": 5 * MEGABYTE, **keys}}
    )
    async with open_s3(settings, Buffers(buffer)) as store:
        yield S3Harness(store, server, bucket)


class AzureHarness(Folder):
    """A prefix of a container, this test's own."""

    peak = BUFFER + 8 * MEGABYTE

    def __init__(self, store: BucketStore, server: AzureServer) -> None:
        super().__init__(server, store.objects.prefix)
        self.azure = store
        self.store: Store = store


@asynccontextmanager
async def azure_harness(
    server: AzureServer, *, container: str = CONTAINER, buffer: int = BUFFER, **keys: object
) -> AsyncIterator[AzureHarness]:
    """A store there; `keys` as in [storage.azure]."""
    settings = StorageSettings.model_validate(
        {"url": f"az://{container}/{new_prefix()}", "azure": {**server.keys, "part_size": 5 * MEGABYTE, **keys}}
    )
    async with open_azure(settings, access_of(settings.azure), Buffers(buffer)) as store:
        yield AzureHarness(store, server)


def new_prefix() -> str:
    """A prefix that no other test has, and that needs escaping."""
    return f"tests {os.getpid()}/~+{next(_numbers)} ü"


# --- what all tests of buckets keep

KEY = "bot=b/date=2026-01-02/s 1+ü/recording/a&b'.wav"
FOLDER = KEY.rpartition("/")[0]
PART = ".session-1.worker-2.epoch-3.part"
SMALL = b"RIFF" + bytes(range(256)) * 40
PIECE = bytes(range(256)) * 1024  # 256 KiB

BucketHarness = S3Harness | AzureHarness


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def keep(
    harness: BucketHarness,
    data: bytes = SMALL,
    key: str = KEY,
    *,
    movable: bool = False,
    to: str | None = None,
    guard: Callable[[], None] | None = None,
) -> Saved:
    async with harness.store.upload(key, part=PART, movable=movable) as upload:
        for start in range(0, len(data), len(PIECE)):
            await upload.write(data[start : start + len(PIECE)])
        return await upload.save(to, guard=guard)


async def content(harness: BucketHarness, key: str = KEY) -> bytes:
    return b"".join([block async for block in harness.store.read(key)])
