"""Recordings in a container of Azure Blob Storage, or of a server that speaks like it: `az://container/prefix`.

What makes it keep the guarantees of `archiver.stores`: an object appears by one Put Blob or one Put Block List, both conditional
(`If-None-Match: *`), so that nothing is overwritten; what carries bytes carries their MD5, to which the server holds what
arrived; and blocks that are not committed nobody sees. docs/object-storage.md has the reasons.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from archiver.config import AzureSettings, StorageSettings
from archiver.errors import StoreUnavailable
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import DIRECT, Network
from archiver.stores import Advice, Listed, Saved
from archiver.stores.azure.access import Access
from archiver.stores.azure.advice import advise
from archiver.stores.azure.blocks import Blocks
from archiver.stores.azure.listing import list_blobs
from archiver.stores.azure.refusals import HINTS, TAKEN
from archiver.stores.azure.trial import headers_of, try_server
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.driver import LISTED, Parts, Trial, Tried
from archiver.stores.bucket.objects import Objects, length_of
from archiver.stores.bucket.refusals import Refused, text_of
from archiver.stores.bucket.store import BucketStore
from archiver.stores.bucket.wire import Body, base64_of, open_http

_AZURE = (".blob.core.windows.net", ".blob.core.usgovcloudapi.net", ".blob.core.chinacloudapi.cn")


class AzureDriver:
    """See `Driver`."""

    proof: Literal["md5"] = "md5"

    def __init__(self, wire: AzureWire, objects: Objects) -> None:
        self._wire = wire
        self._objects = objects
        # Azure need not be tried: it documents all of it.
        documented = Tried() if (urlsplit(self.endpoint).hostname or "").endswith(_AZURE) else None
        self.trial = Trial(documented, lambda: try_server(wire, objects.prefix))

    @property
    def endpoint(self) -> str:
        return self._wire.endpoint

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        try:
            answer = await self._wire.send("PUT", self._objects.prefix + key, headers=headers_of(body), body=body, before=guard)
        except Refused as refused:
            if refused.code not in TAKEN:
                raise
            # Somebody's, or our own: of a try whose answer was lost.
            return await self._objects.compare(key, body.length, body.sha256)
        if answer.headers.get("Content-MD5") != base64_of(body.md5):
            await self._objects.read_back(key, body.length, body.sha256)
        return Saved(key, body.length, body.sha256.hex())

    def parts(self, key: str) -> AzureParts:
        return AzureParts(self._wire, self._objects, key)

    async def sweep(self, key: str, part_key: str, left_for: timedelta) -> bool:
        """Blocks cannot be found. They are invisible, and gone within a week."""
        return False

    async def first_names(self) -> Sequence[str]:
        prefix, names = self._objects.prefix, list[str]()
        query = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": str(LISTED)}
        while True:
            listed = (await self._wire.send("GET", query=query)).xml()
            names += [text_of(blob, "Name").removeprefix(prefix) for blob in listed.iter("Blob")]
            query["marker"] = listed.findtext("NextMarker") or ""
            if names or not query["marker"]:  # the service may give a page without any, and go on with the next one
                return names

    def list(self, prefix: str, *, versions: bool) -> AsyncGenerator[Listed, None]:
        return list_blobs(self._wire, prefix, versions=versions)

    async def advice(self) -> Sequence[Advice]:
        return await advise(self._wire, self._objects.prefix, await self.trial.result())


class AzureParts:
    """See `Parts`: one blob in blocks."""

    def __init__(self, wire: AzureWire, objects: Objects, key: str) -> None:
        self._wire = wire
        self._objects = objects
        self._blocks = Blocks(wire, key)

    @property
    def key(self) -> str:
        return self._blocks.key

    @property
    def completed(self) -> bool:
        return self._blocks.completed

    @property
    def length(self) -> int:
        return self._blocks.length

    async def begin(self) -> None:
        """The service needs not be told."""

    async def send(self, number: int, body: Body) -> None:
        await self._blocks.send(number, body)

    async def complete(self, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        try:
            await self._blocks.commit(sha256, guard)
        except Refused as refused:
            # Ours, of a try whose answer was lost, or another's, whose commit has taken our blocks away.
            if refused.code in TAKEN or (refused.code == "InvalidBlockList" and await self._objects.stored(key)):
                return await self._objects.compare(key, self.length, sha256)
            raise
        head = await self._objects.head(key)
        if head is None or length_of(head) != self.length or head.get("x-ms-meta-sha256") != sha256.hex():
            return await self._objects.compare(key, self.length, sha256)  # which says what is wrong
        return Saved(key, self.length, sha256.hex())

    async def compare(self, key: str, sha256: bytes) -> Saved:
        return await self._objects.compare(key, self.length, sha256)

    async def copy(self, source_key: str, key: str, sha256: bytes, begun: Callable[[Parts], None]) -> AzureParts:
        """Read and sent once more, block by block, in the memory that the upload still has reserved: the service copies only what
        it may read by a URL alone.
        """
        copy = AzureParts(self._wire, self._objects, self._objects.prefix + key)
        begun(copy)
        most, digest = self._blocks.lengths[1], hashlib.sha256()
        gathered: list[bytes] = []

        async def send() -> None:
            body = Body(list(gathered), sum(map(len, gathered)))
            gathered.clear()
            await copy.send(len(copy._blocks.lengths) + 1, await asyncio.to_thread(body.with_md5))

        async for block in self._objects.read(source_key):
            digest.update(block)
            if gathered and sum(map(len, gathered)) + len(block) > most:
                await send()
            gathered.append(block)
        if gathered:
            await send()
        if digest.digest() != sha256:
            raise StoreUnavailable(f"{source_key}: what is read is not what was sent", hint="look at the network", store_key=key)
        return copy

    async def take_back(self, *, aside: bool, interrupted: bool) -> None:
        """Blocks cannot be taken back. They are invisible, and gone within a week."""
        if aside and self._blocks.asked_to_complete:
            await self._objects.remove(self.key)


def azure_store(wire: AzureWire, prefix: str, settings: AzureSettings, buffers: Buffers) -> BucketStore:
    """A store whose requests go over this wire."""
    objects = Objects(wire, prefix, HINTS)
    return BucketStore(f"az://{wire.container}/{prefix}", AzureDriver(wire, objects), objects, settings, buffers)


@asynccontextmanager
async def open_azure(
    settings: StorageSettings, access: Access, buffers: Buffers, network: Network = DIRECT
) -> AsyncIterator[BucketStore]:
    """The store of `storage.url`."""
    try:
        async with open_http(network) as http:
            yield azure_store(
                AzureWire(http, access, settings.azure.blobs, settings.bucket), settings.prefix, settings.azure, buffers
            )
    finally:
        await access.aclose()
