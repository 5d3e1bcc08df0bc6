"""What a server that speaks like Azure's blob service is held to before anything is entrusted to it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable
from dataclasses import replace

from archiver.errors import StoreUnavailable
from archiver.stores.azure.blocks import Blocks
from archiver.stores.azure.refusals import LOCKED, TAKEN
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.driver import Tried
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of


async def try_server(wire: AzureWire, prefix: str) -> Tried:
    """Write small objects as recordings are written, in one piece and in blocks; try to overwrite one, and to have bytes taken
    that are not what they claim. Raises Refused, and StoreUnavailable if the server would do either.
    """
    name = f"{prefix}.check-{secrets.token_hex(8)}"
    wrong = f"{name}-wrong"
    body = Body.of(secrets.token_bytes(64)).with_md5()
    damaged = replace(body, md5=bytes(16))
    deletes = True
    await put(wire, name, body)
    try:
        await _refused(put(wire, name, body), "this server would overwrite an object: it ignores If-None-Match")
        await _refused(_by_blocks(wire, name, body), "this server would overwrite by blocks: it ignores If-None-Match there")
        if (await wire.send("GET", name)).body != body.pieces[0]:
            raise StoreUnavailable("what was written is not what is read back", hint="do not use this server")
        await _damage_is_refused(put(wire, wrong, damaged, patient=False))
        await _damage_is_refused(Blocks(wire, wrong).send(1, damaged, patient=False))
    finally:
        for key in (name, wrong):
            try:
                await wire.send("DELETE", key)
            except Refused as refused:
                if refused.code == LOCKED or refused.status == 403:
                    deletes = False  # whoever may not delete recordings is well protected: that is no fault
                elif refused.code != "BlobNotFound":
                    raise
    return Tried(deletes=deletes)


async def put(wire: AzureWire, key: str, body: Body, *, patient: bool = True) -> None:
    """A small object, as recordings are put. Raises Refused."""
    await wire.send("PUT", key, headers=headers_of(body), body=body, patient=patient)


def headers_of(body: Body) -> dict[str, str]:
    """What an object in one piece is put with: a condition, its MD5 for the server to verify, its SHA-256 to be kept."""
    return {
        "If-None-Match": "*",
        "Content-MD5": base64_of(body.md5),
        "x-ms-blob-type": "BlockBlob",
        "x-ms-meta-sha256": body.sha256.hex(),
    }


async def _by_blocks(wire: AzureWire, key: str, body: Body) -> None:
    blocks = Blocks(wire, key)
    await blocks.send(1, body)
    await blocks.commit(body.sha256, None)


async def _refused(overwriting: Awaitable[None], otherwise: str) -> None:
    try:
        await overwriting
    except Refused as refused:
        if refused.code not in TAKEN:
            raise
    else:
        raise StoreUnavailable(
            otherwise, hint="use a server that knows If-None-Match, for Put Blob as well as for Put Block List"
        )


async def _damage_is_refused(sending: Awaitable[object]) -> None:
    try:
        await sending
    except Refused as refused:
        if refused.status != 400:
            raise
    else:
        raise StoreUnavailable(
            "this server takes damaged bytes: it does not hold them against Content-MD5", hint="do not use this server"
        )
