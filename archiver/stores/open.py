"""The store that the configuration names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from archiver.config import StorageSettings
from archiver.errors import ConfigError
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import DIRECT, Network
from archiver.stores import Store


@contextmanager
def _needing(extra: str, package: str, settings: StorageSettings) -> Iterator[None]:
    """What is imported here, an extra brings."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ConfigError(
            f'storage.url = "{settings.url}" needs an extra that is not installed', hint=f"pip install 'kore-archiver[{extra}]'"
        ) from None


@asynccontextmanager
async def open_store(settings: StorageSettings, buffers: Buffers, network: Network = DIRECT) -> AsyncIterator[Store]:
    """The store that `storage.url` names, for as long as it is needed; a bucket is reached by `network`. Raises ConfigError."""
    if settings.url.startswith("s3:"):
        with _needing("s3", "botocore", settings):
            from archiver.stores.s3.driver import open_s3
        async with open_s3(settings, buffers, network) as store:
            yield store
        return
    if settings.url.startswith("az:"):
        from archiver.stores.azure.driver import open_azure

        with _needing("azure", "azure", settings):
            from archiver.stores.azure.access import access_of

            access = access_of(settings.azure, network)
        async with open_azure(settings, access, buffers, network) as container:
            yield container
        return
    from archiver.stores.local.store import LocalStore

    local = LocalStore(settings.folder, buffers)
    try:
        yield local
    finally:
        local.close()
