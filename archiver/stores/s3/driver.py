"""Recordings in a bucket of S3, or of a server that speaks like it: `s3://bucket/prefix`.

What makes it keep the guarantees of `archiver.stores`: an object appears by one PUT or one completion, both conditional
(`If-None-Match: *`), so that nothing is overwritten; both carry SHA-256, to which the server holds what arrived, and repeat it;
and an upload in parts is aborted however it is left. docs/object-storage.md has the reasons, and what a server must offer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import Literal
from urllib.parse import quote, urlencode, urlsplit
from xml.sax.saxutils import escape

from archiver.config import IN_THE_OPEN, S3Settings, StorageSettings, crosses_openly
from archiver.errors import ConfigError
from archiver.observe.logs import logger
from archiver.runtime.buffers import Buffers
from archiver.runtime.cancellation import settled
from archiver.runtime.network import DIRECT, Network
from archiver.stores import Advice, Listed, Saved
from archiver.stores.bucket.driver import LISTED, Parts, Trial, Tried
from archiver.stores.bucket.objects import Objects, length_of
from archiver.stores.bucket.refusals import Refused, text_of
from archiver.stores.bucket.store import BucketStore
from archiver.stores.bucket.wire import Answer, Body, base64_of, open_http
from archiver.stores.s3.advice import advise
from archiver.stores.s3.listing import list_objects, list_versions
from archiver.stores.s3.parts import Multipart, composite, sweep
from archiver.stores.s3.refusals import HINTS
from archiver.stores.s3.signing import Signer, Site
from archiver.stores.s3.trial import try_server
from archiver.stores.s3.wire import S3Wire

log = logger(__name__)

SHA256_TAG = "archiver-sha256"

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


class S3Driver:
    """See `Driver`."""

    proof: Literal["sha256"] = "sha256"

    def __init__(self, wire: S3Wire, objects: Objects, settings: S3Settings) -> None:
        self._wire = wire
        self._objects = objects
        self._settings = settings
        self._logged_untagged = False
        # AWS need not be tried: it documents all of it.
        documented = Tried() if (urlsplit(self.endpoint).hostname or "").endswith(_AWS) else None
        self.trial = Trial(documented, self._try_server)

    @property
    def endpoint(self) -> str:
        return self._wire.site.endpoint

    async def _try_server(self) -> Tried:
        tried = await try_server(self._wire, self._objects.prefix, self.description())
        self._wire.bucket_seen.set()
        return tried

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

    async def proof_of(self, body: Body) -> tuple[dict[str, str], Callable[[Answer], bool]]:
        """Headers that the server is to hold a body against, and whether its answer says that it did. Where it does not know
        SHA-256, MD5 has to do: sent along, and repeated as the ETag by all that don't encrypt.
        """
        sha256 = base64_of(body.sha256)
        headers = {"x-amz-checksum-sha256": sha256}
        if (await self.trial.result()).verifies:
            return headers, lambda answer: answer.headers.get("x-amz-checksum-sha256") == sha256
        md5 = (await asyncio.to_thread(body.with_md5)).md5
        return {**headers, "Content-MD5": base64_of(md5)}, lambda answer: answer.etag.strip('"') == md5.hex()

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        proof, proven = await self.proof_of(body)
        headers = {**self.description(body.sha256), **proof, "If-None-Match": "*"}
        try:
            answer = await self._wire.send("PUT", self._objects.prefix + key, headers=headers, body=body, before=guard)
        except Refused as refused:
            if refused.status != 412:
                raise
            # Somebody's, or our own: of a try whose answer was lost.
            return await self._objects.compare(key, body.length, body.sha256, self.vouched)
        if not proven(answer):
            await self._objects.read_back(key, body.length, body.sha256)
        return Saved(key, body.length, body.sha256.hex())

    def parts(self, key: str) -> S3Parts:
        return S3Parts(self, self._wire, self._objects, key)

    async def vouched(self, head: Mapping[str, str]) -> bytes:
        """The SHA-256 that the server keeps of an object in one piece."""
        kept = head.get("x-amz-checksum-sha256", "")
        return _decoded(kept) if kept and "-" not in kept and (await self.trial.result()).verifies else b""

    async def tag(self, key: str, sha256: bytes) -> None:
        """Write the hash of an object in parts into a tag: its metadata was closed before the last byte had come."""
        tags = "".join(
            f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
            for name, value in (*self._settings.tags, (SHA256_TAG, sha256.hex()))
        )
        body = Body.of(f"<Tagging><TagSet>{tags}</TagSet></Tagging>".encode()).with_md5()
        headers = {"Content-MD5": base64_of(body.md5), "Content-Type": "application/xml"}
        try:
            await self._wire.send("PUT", self._objects.prefix + key, query={"tagging": ""}, headers=headers, body=body)
        except Refused as refused:
            # The database has the hash; the tag is a convenience for those who look at the bucket alone.
            if not self._logged_untagged:
                log.info("object_tagging_failed", store_key=key, error=refused.code)
                self._logged_untagged = True

    async def sweep(self, key: str, part_key: str, left_for: timedelta) -> bool:
        swept = await sweep(self._wire, self._objects.prefix + key, left_for)
        # The temporary one's name tells whose it is, so that its age does not matter.
        return await sweep(self._wire, self._objects.prefix + part_key, timedelta.min) or swept

    async def first_names(self) -> Sequence[str]:
        prefix = self._objects.prefix
        answer = await self._wire.send("GET", query={"list-type": "2", "prefix": prefix, "max-keys": str(LISTED)})
        keys = [text_of(each, "Key") for each in answer.xml().iter("Contents")]
        return [key.removeprefix(prefix) for key in keys]

    def list(self, prefix: str, *, versions: bool) -> AsyncGenerator[Listed, None]:
        return list_versions(self._wire, prefix) if versions else list_objects(self._wire, prefix)

    async def advice(self) -> Sequence[Advice]:
        return await advise(self._wire, self._objects.prefix, await self.trial.result())


class S3Parts:
    """See `Parts`: one multipart upload, or a copy of what became of it."""

    def __init__(self, driver: S3Driver, wire: S3Wire, objects: Objects, key: str) -> None:
        self._driver = driver
        self._wire = wire
        self._objects = objects
        self._multipart = Multipart(wire, key)

    @property
    def key(self) -> str:
        return self._multipart.key

    @property
    def completed(self) -> bool:
        return self._multipart.completed

    @property
    def length(self) -> int:
        return self._multipart.length

    async def begin(self) -> None:
        await self._multipart.begin(self._driver.description(), checksums=(await self._driver.trial.result()).verifies)

    async def send(self, number: int, body: Body) -> None:
        await self._multipart.send(number, body, *await self._driver.proof_of(body))

    async def complete(self, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        driver, objects = self._driver, self._objects
        try:
            answer = await self._multipart.complete(guard)
        except Refused as refused:
            # No upload any more: the answer to an earlier try was lost, and that one did it. Or another one was quicker.
            if refused.status == 412 or (refused.status in (404, 409) and await objects.stored(key)):
                return await self.compare(key, sha256)
            raise
        head = await objects.head(key)
        if head is None:
            return await objects.compare(key, self.length, sha256, driver.vouched)  # which says so
        theirs = head.get("x-amz-checksum-sha256") or text_of(answer.xml(), "ChecksumSHA256")
        if length_of(head) != self.length or (theirs and theirs != composite(self._multipart.parts)):
            # Some servers look whether the key is taken, and then complete, which is not one act: somebody came in between.
            return await objects.compare(key, self.length, sha256, driver.vouched)
        # Where the server has no checksum of the whole, those of the parts, in an object of the right length, say as much.
        if not theirs and not all(part.confirmed for part in self._multipart.parts):
            await objects.read_back(key, self.length, sha256)
        if "x-amz-meta-sha256" not in head:
            await driver.tag(key, sha256)
        return Saved(key, self.length, sha256.hex())

    async def compare(self, key: str, sha256: bytes) -> Saved:
        async def vouched(head: Mapping[str, str]) -> bytes:
            """The server may keep the checksum of an object in parts: the one that it would have in ours."""
            kept = head.get("x-amz-checksum-sha256", "")
            if "-" not in kept or not (await self._driver.trial.result()).verifies:
                return await self._driver.vouched(head)
            return sha256 if kept == composite(self._multipart.parts) and length_of(head) == self.length else b""

        return await self._objects.compare(key, self.length, sha256, vouched)

    async def copy(self, source_key: str, key: str, sha256: bytes, begun: Callable[[Parts], None]) -> S3Parts:
        """The server copies, in parts as well. Some compute no checksums of what they copy: then it is begun without them, and
        read back in the end.
        """
        verifies = (await self._driver.trial.result()).verifies
        copy = await self._copied(source_key, key, sha256, begun, checksums=verifies)
        if verifies and not all(part.confirmed for part in copy._multipart.parts):
            copy = await self._copied(source_key, key, sha256, begun, checksums=False)
        return copy

    async def _copied(
        self, source_key: str, key: str, sha256: bytes, begun: Callable[[Parts], None], *, checksums: bool
    ) -> S3Parts:
        prefix = self._objects.prefix
        copy = self._driver.parts(prefix + key)
        begun(copy)
        await settled(copy._multipart.begin(self._driver.description(sha256), checksums=checksums))
        source = {"x-amz-copy-source": f"/{self._wire.bucket}/{quote(prefix + source_key, safe='/~')}"}
        await copy._multipart.copy(self._multipart, source)
        return copy

    async def take_back(self, *, aside: bool, interrupted: bool) -> None:
        await self._multipart.abort(interrupted=interrupted)
        if aside and self._multipart.asked_to_complete:
            await self._objects.remove(self.key)


def _decoded(checksum: str) -> bytes:
    try:
        return base64.b64decode(checksum, validate=True)
    except binascii.Error:
        return b""


def s3_store(wire: S3Wire, prefix: str, settings: S3Settings, buffers: Buffers) -> BucketStore:
    """A store whose requests go over this wire."""
    objects = Objects(wire, prefix, HINTS)
    return BucketStore(f"s3://{wire.bucket}/{prefix}", S3Driver(wire, objects, settings), objects, settings, buffers)


@asynccontextmanager
async def open_s3(settings: StorageSettings, buffers: Buffers, network: Network = DIRECT) -> AsyncIterator[BucketStore]:
    """The store of `storage.url`. Raises ConfigError."""
    with closing(Signer(settings.s3, network)) as signer:
        site = await asyncio.to_thread(_checked_site, signer, settings)
        async with open_http(network) as http:
            wire = S3Wire(http, signer, site, settings.bucket, settings.s3.path_style)
            yield s3_store(wire, settings.prefix, settings.s3, buffers)


def _checked_site(signer: Signer, settings: StorageSettings) -> Site:
    """Where the store is; blocks. Raises ConfigError."""
    site = signer.site()
    for named in (site.endpoint, *signer.services()):
        if crosses_openly(named) and not settings.allow_http:
            raise ConfigError(
                f'storage: "{named}", which AWS\'s own settings name, {IN_THE_OPEN}',
                hint="AWS_ENDPOINT_URL and its like are read from the environment and from AWS's configuration files",
            )
    if urlsplit(site.endpoint).username is not None:
        raise ConfigError(
            f'storage: "{site.endpoint}", which AWS\'s own settings name, must have no user in it',
            hint="name the server alone in AWS_ENDPOINT_URL and its like: requests are signed with the credentials of AWS",
        )
    return site
