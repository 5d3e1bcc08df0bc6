"""Recordings in a container of Azure Blob Storage, or of a server that speaks like it: `az://container/prefix`.

What makes it keep the guarantees of `archiver.stores`: an object appears by one Put Blob or one Put Block List, both conditional
(`If-None-Match: *`), so that nothing is overwritten; what carries bytes carries their MD5, to which the server holds what
arrived; and blocks that are not committed nobody sees. docs/object-storage.md has the reasons.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from archiver.config import AzureSettings, StorageSettings
from archiver.errors import StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import DIRECT, Network
from archiver.stores import Advice, Saved
from archiver.stores.azure.access import Access
from archiver.stores.azure.advice import advise
from archiver.stores.azure.blocks import Blocks
from archiver.stores.azure.refusals import HINTS, LOCKED, TAKEN
from archiver.stores.azure.trial import Tried, headers_of, try_server
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.store import BucketStore, length_of
from archiver.stores.bucket.wire import Body, base64_of, open_http

log = logger(__name__)

_AZURE = (".blob.core.windows.net", ".blob.core.usgovcloudapi.net", ".blob.core.chinacloudapi.cn")


class AzureStore(BucketStore[Blocks, Tried]):
    """An `az://` store. See `archiver.stores` for what it guarantees."""

    hints = HINTS
    proof = "md5"

    def __init__(self, wire: AzureWire, prefix: str, settings: AzureSettings, buffers: Buffers) -> None:
        super().__init__(wire, f"az://{wire.container}/{prefix}", prefix, settings, buffers)
        self.wire = wire

    @property
    def endpoint(self) -> str:
        return self.wire.endpoint

    def check_key(self, key: str) -> None:
        super().check_key(key)
        if any(part.endswith(".") for part in (self.prefix + key).split("/")):
            # On their way such dots get lost, and two keys would be one.
            raise StoreError(f"{key} cannot be kept: Azure takes no name that ends with a dot", store_key=key)

    # --- writing

    def known(self) -> Tried | None:
        """Azure need not be tried: it documents all of it."""
        return Tried() if (urlsplit(self.endpoint).hostname or "").endswith(_AZURE) else None

    async def try_server(self) -> Tried:
        return await try_server(self.wire, self.prefix)

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        try:
            answer = await self.wire.send("PUT", self.prefix + key, headers=headers_of(body), body=body, before=guard)
        except Refused as refused:
            if refused.code not in TAKEN:
                raise
            # Somebody's, or our own: of a try whose answer was lost.
            return await self.compare(key, body.length, body.sha256)
        if answer.headers.get("Content-MD5") != base64_of(body.md5):
            await self.read_back(key, body.length, body.sha256)
        return Saved(key, body.length, body.sha256.hex())

    def parts(self, key: str) -> Blocks:
        return Blocks(self.wire, key)

    async def begin(self, blocks: Blocks) -> None:
        pass

    async def send_part(self, blocks: Blocks, number: int, body: Body) -> None:
        await blocks.send(number, body)

    async def complete(self, blocks: Blocks, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        try:
            await blocks.commit(sha256, guard)
        except Refused as refused:
            # Ours, of a try whose answer was lost, or another's, whose commit has taken our blocks away.
            if refused.code in TAKEN or (refused.code == "InvalidBlockList" and await self.stored(key)):
                return await self.compare(key, blocks.length, sha256)
            raise
        head = await self.head(key)
        if head is None or length_of(head) != blocks.length or head.get("x-ms-meta-sha256") != sha256.hex():
            return await self.compare(key, blocks.length, sha256)  # which says what is wrong
        return Saved(key, blocks.length, sha256.hex())

    async def copy(self, source: Blocks, source_key: str, key: str, sha256: bytes, begun: Callable[[Blocks], None]) -> Blocks:
        """Read and sent once more, block by block, in the memory that the upload still has reserved: the service copies only what
        it may read by a URL alone.
        """
        copy = self.parts(self.prefix + key)
        begun(copy)
        most, digest = source.lengths[1], hashlib.sha256()
        gathered: list[bytes] = []

        async def send() -> None:
            body = Body(list(gathered), sum(map(len, gathered)))
            gathered.clear()
            await copy.send(len(copy.lengths) + 1, await asyncio.to_thread(body.with_md5))

        async for block in self.read(source_key):
            digest.update(block)
            if gathered and sum(map(len, gathered)) + len(block) > most:
                await send()
            gathered.append(block)
        if gathered:
            await send()
        if digest.digest() != sha256:
            raise StoreUnavailable(f"{source_key}: what is read is not what was sent", hint="look at the network", store_key=key)
        return copy

    async def take_back(self, blocks: Blocks, *, aside: bool, interrupted: bool) -> None:
        """Blocks cannot be taken back. They are invisible, and gone within a week."""
        if aside and blocks.asked_to_complete:
            await self.remove(blocks.key)

    # --- reading

    async def head(self, key: str) -> Mapping[str, str] | None:
        try:
            return (await self.wire.send("HEAD", self.prefix + key)).headers
        except Refused as refused:
            if not self.missing(refused):
                raise
            return None

    def missing(self, refused: Refused) -> bool:
        return refused.code == "BlobNotFound"

    # --- keeping house

    async def remove(self, key: str) -> None:
        try:
            await super().remove(key)
        except Refused as refused:
            if refused.code != LOCKED:
                raise
            # To try again and again would not help: it stays until the policy lets it go, and is no recording.
            log.warning("temporary_object_locked", store_key=key, error=refused.code)

    async def advice(self) -> list[Advice]:
        return await advise(self.wire, self.prefix, await self.tried())


@asynccontextmanager
async def open_azure(
    settings: StorageSettings, access: Access, buffers: Buffers, network: Network = DIRECT
) -> AsyncIterator[AzureStore]:
    """The store of `storage.url`."""
    try:
        async with open_http(network) as http:
            yield AzureStore(
                AzureWire(http, access, settings.azure.blobs, settings.bucket), settings.prefix, settings.azure, buffers
            )
    finally:
        await access.aclose()
