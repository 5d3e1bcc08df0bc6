"""Over TLS, connections to a bucket are used again: a handshake costs more than a small recording."""

from __future__ import annotations

import asyncio

import pytest

from archiver.config import NetworkSettings, StorageSettings
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import Network
from archiver.stores.bucket.driver import Tried
from archiver.stores.bucket.store import BucketStore
from archiver.stores.open import open_store
from tests.runtime.network.conftest import Authority

OBJECTS, AT_ONCE = 60, 4


@pytest.mark.parametrize("size", [1000, 600_000])
async def test_as_many_handshakes_as_objects_at_once(authority: Authority, size: int) -> None:
    handshakes, stored = 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal handshakes, stored
        handshakes += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                sent = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n"))}
                await reader.readexactly(int(sent["content-length"]))
                stored += 1
                writer.write(f"HTTP/1.1 200 OK\r\nx-amz-checksum-sha256: {sent['x-amz-checksum-sha256']}\r\n".encode())
                writer.write(b"Content-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server)
    port = server.sockets[0].getsockname()[1]
    keys = {"endpoint": f"https://127.0.0.1:{port}", "access_key_id": "AKIA", "secret_access_key": "Particular-7"}
    settings = StorageSettings.model_validate({"url": "s3://calls/audit", "s3": keys})
    network = Network.of(NetworkSettings(ca_bundle=authority.file), {})
    async with server, open_store(settings, Buffers(2**26), network) as store:
        assert isinstance(store, BucketStore)
        store.driver.trial.skip(Tried())
        slots = asyncio.Semaphore(AT_ONCE)

        async def keep(number: int) -> None:
            async with slots, store.upload(f"{number}.wav", part=f".{number}.part") as upload:
                upload.expect(size)
                await upload.write(bytes(size))
                await upload.save()

        await asyncio.gather(*map(keep, range(OBJECTS)))
    assert stored == OBJECTS
    assert handshakes <= AT_ONCE
