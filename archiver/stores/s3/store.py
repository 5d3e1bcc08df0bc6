"""Recordings in a bucket of S3, or of a server that speaks like it: `s3://bucket/prefix`.

What makes it keep the guarantees of `archiver.stores`: an object appears by one PUT or one completion, both conditional
(`If-None-Match: *`), so that nothing is overwritten; both carry SHA-256, to which the server holds what arrived, and repeat it;
and an upload in parts is aborted however it is left. docs/object-storage.md has the reasons, and what a server must offer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from urllib.parse import quote, urlencode, urlsplit
from xml.sax.saxutils import escape

from archiver.config import IN_THE_OPEN, S3Settings, StorageSettings, crosses_openly
from archiver.errors import ConfigError
from archiver.observe.logs import logger
from archiver.runtime.buffers import Buffers
from archiver.runtime.network import DIRECT, Network
from archiver.stores import Advice, Saved
from archiver.stores.bucket.parts_upload import settled
from archiver.stores.bucket.refusals import Refused, text_of
from archiver.stores.bucket.store import BucketStore, length_of
from archiver.stores.bucket.wire import Answer, Body, base64_of, open_http
from archiver.stores.s3.advice import advise
from archiver.stores.s3.parts import Multipart, composite, sweep
from archiver.stores.s3.refusals import HINTS
from archiver.stores.s3.signing import Signer, Site
from archiver.stores.s3.trial import Tried, try_server
from archiver.stores.s3.wire import S3Wire

log = logger(__name__)

SHA256_TAG = "archiver-sha256"

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


class S3Store(BucketStore[Multipart, Tried]):
    """An `s3://` store. See `archiver.stores` for what it guarantees."""

    hints = HINTS
    proof = "sha256"

    def __init__(self, wire: S3Wire, prefix: str, settings: S3Settings, buffers: Buffers) -> None:
        super().__init__(wire, f"s3://{wire.bucket}/{prefix}", prefix, settings, buffers)
        self.wire = wire
        self._settings = settings
        self._bucket_seen = False
        self._said_untagged = False

    @property
    def endpoint(self) -> str:
        return self.wire.site.endpoint

    def description(self, sha256: bytes | None = None) -> dict[str, str]:
        """Headers of a new object: what the settings say of every one, and its hash where that is known when it begins."""
        wanted = self._settings
        headers = {
            "x-amz-server-side-encryption": wanted.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": wanted.kms_key_id,
            "x-amz-storage-class": wanted.storage_class,
            "x-amz-tagging": urlencode(wanted.tags, quote_via=quote),
            "x-amz-meta-sha256": sha256.hex() if sha256 else "",
        }
        return {name: value for name, value in headers.items() if value}

    def copy_source(self, key: str) -> dict[str, str]:
        """The header that names an object to copy from."""
        return {"x-amz-copy-source": f"/{self.wire.bucket}/{quote(self.prefix + key, safe='/~')}"}

    # --- writing

    def known(self) -> Tried | None:
        """AWS need not be tried: it documents all of it."""
        return Tried(verifies=True) if (urlsplit(self.endpoint).hostname or "").endswith(_AWS) else None

    async def try_server(self) -> Tried:
        tried = await try_server(self.wire, self.prefix, self.description())
        self._bucket_seen = True
        return tried

    async def _proof(self, body: Body) -> tuple[dict[str, str], Callable[[Answer], bool]]:
        """Headers that the server is to hold a body against, and whether its answer says that it did. Where it does not know
        SHA-256, MD5 has to do: sent along, and repeated as the ETag by all that don't encrypt.
        """
        sha256 = base64_of(body.sha256)
        headers = {"x-amz-checksum-sha256": sha256}
        if (await self.tried()).verifies:
            return headers, lambda answer: answer.headers.get("x-amz-checksum-sha256") == sha256
        md5 = (await asyncio.to_thread(body.with_md5)).md5
        return {**headers, "Content-MD5": base64_of(md5)}, lambda answer: answer.etag.strip('"') == md5.hex()

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        proof, proven = await self._proof(body)
        headers = {**self.description(body.sha256), **proof, "If-None-Match": "*"}
        try:
            answer = await self.wire.send("PUT", self.prefix + key, headers=headers, body=body, before=guard)
        except Refused as refused:
            if refused.status != 412:
                raise
            # Somebody's, or our own: of a try whose answer was lost.
            return await self.compare(key, body.length, body.sha256)
        if not proven(answer):
            await self.read_back(key, body.length, body.sha256)
        return Saved(key, body.length, body.sha256.hex())

    def parts(self, key: str) -> Multipart:
        return Multipart(self.wire, key)

    async def begin(self, multipart: Multipart) -> None:
        await multipart.begin(self.description(), checksums=(await self.tried()).verifies)

    async def copy(
        self, source: Multipart, source_key: str, key: str, sha256: bytes, begun: Callable[[Multipart], None]
    ) -> Multipart:
        """The server copies, in parts as well. Some compute no checksums of what they copy: then it is begun without them, and
        read back in the end.
        """
        verifies = (await self.tried()).verifies
        copy = await self._copied(source, source_key, key, sha256, begun, checksums=verifies)
        if verifies and not all(part.confirmed for part in copy.parts):
            copy = await self._copied(source, source_key, key, sha256, begun, checksums=False)
        return copy

    async def _copied(
        self, source: Multipart, source_key: str, key: str, sha256: bytes, begun: Callable[[Multipart], None], *, checksums: bool
    ) -> Multipart:
        copy = self.parts(self.prefix + key)
        begun(copy)
        await settled(copy.begin(self.description(sha256), checksums=checksums))
        await copy.copy(source, self.copy_source(source_key))
        return copy

    async def send_part(self, multipart: Multipart, number: int, body: Body) -> None:
        await multipart.send(number, body, *await self._proof(body))

    async def complete(self, multipart: Multipart, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        try:
            answer = await multipart.complete(guard)
        except Refused as refused:
            # No upload any more: the answer to an earlier try was lost, and that one did it. Or another one was quicker.
            if refused.status == 412 or (refused.status in (404, 409) and await self.stored(key)):
                return await self.compare(key, multipart.length, sha256, multipart)
            raise
        head = await self.head(key)
        if head is None:
            return await self.compare(key, multipart.length, sha256)  # which says so
        theirs = head.get("x-amz-checksum-sha256") or text_of(answer.xml(), "ChecksumSHA256")
        if length_of(head) != multipart.length or (theirs and theirs != composite(multipart.parts)):
            # Some servers look whether the key is taken, and then complete, which is not one act: somebody came in between.
            return await self.compare(key, multipart.length, sha256)
        # Where the server has no checksum of the whole, those of the parts, in an object of the right length, say as much.
        if not theirs and not all(part.confirmed for part in multipart.parts):
            await self.read_back(key, multipart.length, sha256)
        if "x-amz-meta-sha256" not in head:
            await self._tag(key, sha256)
        return Saved(key, multipart.length, sha256.hex())

    async def _tag(self, key: str, sha256: bytes) -> None:
        """Write the hash of an object in parts into a tag: its metadata was closed before the last byte had come."""
        tags = "".join(
            f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
            for name, value in (*self._settings.tags, (SHA256_TAG, sha256.hex()))
        )
        body = Body.of(f"<Tagging><TagSet>{tags}</TagSet></Tagging>".encode()).with_md5()
        headers = {"Content-MD5": base64_of(body.md5), "Content-Type": "application/xml"}
        try:
            await self.wire.send("PUT", self.prefix + key, query={"tagging": ""}, headers=headers, body=body)
        except Refused as refused:
            # The ledger has the hash; the tag is a convenience for those who look at the bucket alone.
            if not self._said_untagged:
                log.info("object_tagging_failed", store_key=key, error=refused.code)
                self._said_untagged = True

    async def vouched(self, head: Mapping[str, str], length: int, sha256: bytes, parts: Multipart | None) -> bytes:
        """By the checksum that the server keeps of it: its own, or the one that it would have in our parts."""
        kept = head.get("x-amz-checksum-sha256", "")
        if not kept or not (await self.tried()).verifies:
            return b""
        if "-" not in kept:
            return _decoded(kept)
        return sha256 if parts and kept == composite(parts.parts) and length_of(head) == length else b""

    async def take_back(self, multipart: Multipart, *, aside: bool, interrupted: bool) -> None:
        await multipart.abort(interrupted=interrupted)
        if aside and multipart.asked_to_complete:
            await self.remove(multipart.key)

    # --- reading

    async def head(self, key: str) -> Mapping[str, str] | None:
        try:
            found = await self.wire.send("HEAD", self.prefix + key, headers={"x-amz-checksum-mode": "ENABLED"})
        except Refused as refused:
            if refused.status != 404:
                raise
            if not self._bucket_seen:
                await self._see_bucket(key)
            return None
        self._bucket_seen = True
        return found.headers

    async def _see_bucket(self, key: str) -> None:
        """A HEAD that finds nothing does not say whether it is the object that is missing or the bucket."""
        try:
            await self.wire.send("GET", self.prefix + key, headers={"Range": "bytes=0-0"})
        except Refused as refused:
            if not self.missing(refused):
                raise
        self._bucket_seen = True

    def missing(self, refused: Refused) -> bool:
        return refused.code == "NoSuchKey"

    # --- keeping house

    async def sweep(self, key: str, part_key: str, left_for: timedelta) -> bool:
        swept = await sweep(self.wire, self.prefix + key, left_for)
        # The temporary one's name tells whose it is, so that its age does not matter.
        return await sweep(self.wire, self.prefix + part_key, timedelta.min) or swept

    async def advice(self) -> list[Advice]:
        with self.translated(f"s3://{self.wire.bucket}"):
            return await advise(self.wire, self.prefix, await self.tried())


def _decoded(checksum: str) -> bytes:
    try:
        return base64.b64decode(checksum, validate=True)
    except binascii.Error:
        return b""


@asynccontextmanager
async def open_s3(settings: StorageSettings, buffers: Buffers, network: Network = DIRECT) -> AsyncIterator[S3Store]:
    """The store of `storage.url`. Raises ConfigError."""
    with closing(Signer(settings.s3, network)) as signer:
        site = await asyncio.to_thread(_checked_site, signer, settings)
        async with open_http(network) as http:
            wire = S3Wire(http, signer, site, settings.bucket, settings.s3.path_style)
            yield S3Store(wire, settings.prefix, settings.s3, buffers)


def _checked_site(signer: Signer, settings: StorageSettings) -> Site:
    """Where the store is; blocks. Raises ConfigError."""
    site = signer.site()
    for named in (site.endpoint, *signer.services()):
        if crosses_openly(named) and not settings.allow_http:
            raise ConfigError(
                f"storage: {named!r}, which AWS's own settings name, {IN_THE_OPEN}",
                hint="AWS_ENDPOINT_URL and its like are read from the environment and from AWS's configuration files",
            )
    if urlsplit(site.endpoint).username is not None:
        raise ConfigError(
            f"storage: {site.endpoint!r}, which AWS's own settings name, has a user in it",
            hint="name the server alone in AWS_ENDPOINT_URL and its like: requests are signed with the credentials of AWS",
        )
    return site
