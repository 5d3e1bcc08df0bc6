"""What an S3 server is held to before anything is entrusted to it: those that call themselves compatible differ in just this."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from archiver.errors import StoreUnavailable
from archiver.stores.bucket.driver import Tried
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of
from archiver.stores.s3.parts import Multipart
from archiver.stores.s3.wire import S3Wire


async def try_server(wire: S3Wire, prefix: str, description: Mapping[str, str]) -> Tried:
    """Write small objects with all that a recording is written with, and try to overwrite one, once by each way there is. Raises
    Refused, and StoreUnavailable if the server would overwrite.
    """
    name = f"{prefix}.check-{secrets.token_hex(8)}"
    wrong = f"{name}-wrong"
    body = Body.of(secrets.token_bytes(64))
    multipart = Multipart(wire, name)
    deletes = True
    once = {**description, **_checksum(body), "If-None-Match": "*"}
    stored = await wire.send("PUT", name, headers=once, body=body)
    try:
        await _must_not_overwrite(wire, name, once, body, multipart, description)
        read = await wire.send("GET", name)
        if read.body != body.pieces[0]:
            raise StoreUnavailable("what was written is not what is read back", hint="do not use this server")
        repeats = stored.headers.get("x-amz-checksum-sha256") == base64_of(body.sha256)
        verifies = repeats and await _refuses_wrong_bytes(wire, wrong, body)
    finally:
        for key in (name, wrong):
            try:
                await wire.send("DELETE", key)
            except Refused as refused:
                if refused.status != 403:
                    raise
                deletes = False  # whoever may not delete recordings is well protected: that is no fault
    return Tried(verifies, deletes)


def _checksum(body: Body) -> dict[str, str]:
    return {"x-amz-checksum-sha256": base64_of(body.sha256)}


async def _must_not_overwrite(
    wire: S3Wire, key: str, once: Mapping[str, str], body: Body, multipart: Multipart, description: Mapping[str, str]
) -> None:
    """A second conditional PUT and a conditional completion must both be refused."""
    hint = "use a server that knows If-None-Match, for PutObject as well as for CompleteMultipartUpload"
    try:
        await wire.send("PUT", key, headers=once, body=body)
    except Refused as refused:
        if refused.status != 412:
            raise
    else:
        raise StoreUnavailable("this server would overwrite an object: it ignores If-None-Match", hint=hint)
    await multipart.begin(description)
    try:
        await multipart.send(1, body, _checksum(body), lambda _: True)
        await multipart.complete(None)
    except Refused as refused:
        if refused.status != 412:
            raise
    else:
        raise StoreUnavailable("this server would overwrite an object by parts: it ignores If-None-Match there", hint=hint)
    finally:
        await multipart.abort(interrupted=False)


async def _refuses_wrong_bytes(wire: S3Wire, key: str, body: Body) -> bool:
    """Whether a body is refused that has not the SHA-256 it claims, though the signature, which has another one, is right."""
    try:
        await wire.send("PUT", key, headers={"x-amz-checksum-sha256": base64_of(bytes(32))}, body=body, patient=False)
    except Refused as refused:
        if refused.status != 400:
            raise
        return True
    return False
