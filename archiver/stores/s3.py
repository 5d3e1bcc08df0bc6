"""Recordings in a bucket of S3, or of a server that speaks like it: `s3://bucket/prefix`.

What makes it keep the guarantees of `archiver.stores`: an object appears by one PUT or one completion, both conditional
(`If-None-Match: *`), so that nothing is overwritten; both carry SHA-256, to which the server holds what arrived, and repeat it;
and an upload in parts is aborted however it is left. docs/object-storage.md has the reasons, and what a server must offer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import quote, urlencode, urlsplit
from xml.sax.saxutils import escape

import aiohttp

from archiver.buffers import Buffers
from archiver.cancellation import to_its_end
from archiver.config import S3Settings, StorageSettings
from archiver.errors import KeyConflict, StoreError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.stores import Advice, Saved, check_key, check_part
from archiver.stores.s3_advice import advise
from archiver.stores.s3_parts import Multipart, composite, sweep
from archiver.stores.s3_refusals import Refused, text_of, translated
from archiver.stores.s3_signing import Signer
from archiver.stores.s3_trial import Tried, try_server
from archiver.stores.s3_upload import S3Upload, settled
from archiver.stores.s3_wire import READ_BUFFER, Answer, Body, S3Wire, base64_of, open_http
from archiver.transient import TRIES

log = logger(__name__)

LONGEST_KEY = 1024
"""Bytes of UTF-8, the prefix included."""

SHA256_TAG = "archiver-sha256"

_AWS = (".amazonaws.com", ".amazonaws.com.cn")


class S3Store:
    """An `s3://` store. See `archiver.stores` for what it guarantees."""

    def __init__(self, wire: S3Wire, prefix: str, settings: S3Settings, buffers: Buffers) -> None:
        self.wire = wire
        self.prefix = prefix
        self.parts_in_flight = settings.parts_in_flight
        self._settings = settings
        self._buffers = buffers
        self._tried: Tried | None = None
        self._trying = asyncio.Lock()
        self._bucket_seen = False
        self._said_untagged = False
        self._stuck: list[tuple[Multipart, bool]] = []

    # --- keys and headers

    def check_key(self, key: str) -> None:
        """Raises StoreError for a key that could leave the prefix, or that S3 does not take."""
        check_key(key)
        if len((self.prefix + key).encode()) > LONGEST_KEY:
            raise StoreError(f"{key} cannot be kept: longer than {LONGEST_KEY} bytes", hint="shorten storage.path", store_key=key)

    def _part_key(self, key: str, part: str) -> str:
        self.check_key(key)
        check_part(key, part)
        return "/".join((*key.split("/")[:-1], part))

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

    @asynccontextmanager
    async def upload(self, key: str, *, part: str, movable: bool = False) -> AsyncIterator[S3Upload]:
        part_key = self._part_key(key, part)
        async with self._buffers.reserve(self._settings.part_size) as memory:
            upload = S3Upload(self, key, part_key, memory, movable=movable)
            try:
                yield upload
            finally:
                await to_its_end(upload.drop())

    async def tried(self) -> Tried:
        """What the server is known to keep to; tried once, before the first object. AWS need not be: it documents all of it."""
        if self._tried is None:
            async with self._trying:
                if self._tried is None:
                    if (urlsplit(self.wire.site.endpoint).hostname or "").endswith(_AWS):
                        self._tried = Tried(verifies=True)
                    else:
                        await settled(self._try())
        assert self._tried is not None
        return self._tried

    async def _try(self) -> None:
        self._tried = await try_server(self.wire, self.prefix, self.description())
        self._bucket_seen = True

    async def _proof(self, body: Body) -> tuple[dict[str, str], Callable[[Answer], bool]]:
        """Headers that the server is to hold a body against, and whether its answer says that it did. Where it does not know
        SHA-256, MD5 has to do: sent along, and repeated as the ETag by all that don't encrypt.
        """
        sha256 = base64_of(body.sha256)
        headers = {"x-amz-checksum-sha256": sha256}
        if (await self.tried()).verifies:
            return headers, lambda answer: answer.headers.get("x-amz-checksum-sha256") == sha256
        md5 = await asyncio.to_thread(body.md5)
        return {**headers, "Content-MD5": base64_of(md5)}, lambda answer: answer.etag.strip('"') == md5.hex()

    async def put(self, key: str, body: Body, guard: Callable[[], None] | None) -> Saved:
        """An object in one request. Raises Refused, KeyConflict."""
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
            await self._read_back(key, body.sha256)
        return Saved(key, body.length, body.sha256.hex())

    async def send_part(self, multipart: Multipart, number: int, body: Body) -> None:
        """A part of an object. Raises Refused."""
        await multipart.send(number, body, *await self._proof(body))

    async def complete(self, multipart: Multipart, key: str, sha256: bytes, guard: Callable[[], None] | None) -> Saved:
        """An object of its parts. Raises Refused, KeyConflict."""
        try:
            answer = await multipart.complete(guard)
        except Refused as refused:
            # No upload any more: the answer to an earlier try was lost, and that one did it. Or another one was quicker.
            if refused.status == 412 or (refused.status in (404, 409) and await self.stored(key)):
                return await self.compare(key, multipart.length, sha256, composite(multipart.parts))
            raise
        head = await self._head(key)
        if head is None:
            return await self.compare(key, multipart.length, sha256)  # which says so
        theirs = head.get("x-amz-checksum-sha256") or text_of(answer.xml(), "ChecksumSHA256")
        if _length(head) != multipart.length or (theirs and theirs != composite(multipart.parts)):
            # Some servers look whether the key is taken, and then complete, which is not one act: somebody came in between.
            return await self.compare(key, multipart.length, sha256)
        # Where the server has no checksum of the whole, those of the parts, in an object of the right length, say as much.
        if not theirs and not all(part.confirmed for part in multipart.parts):
            await self._read_back(key, sha256)
        if "x-amz-meta-sha256" not in head:
            await self._tag(key, sha256)
        return Saved(key, multipart.length, sha256.hex())

    async def _tag(self, key: str, sha256: bytes) -> None:
        """Write the hash of an object in parts into a tag: its metadata was closed before the last byte had come."""
        tags = "".join(
            f"<Tag><Key>{escape(name)}</Key><Value>{escape(value)}</Value></Tag>"
            for name, value in (*self._settings.tags, (SHA256_TAG, sha256.hex()))
        )
        body = Body.of(f"<Tagging><TagSet>{tags}</TagSet></Tagging>".encode())
        headers = {"Content-MD5": base64_of(body.md5()), "Content-Type": "application/xml"}
        try:
            await self.wire.send("PUT", self.prefix + key, query={"tagging": ""}, headers=headers, body=body)
        except Refused as refused:
            # The ledger has the hash; the tag is a convenience for those who look at the bucket alone.
            if not self._said_untagged:
                log.info("object_not_tagged", store_key=key, error=refused.code)
                self._said_untagged = True

    async def compare(self, key: str, length: int, sha256: bytes, layout: str = "") -> Saved:
        """Hold what lies under a key against what should: by the checksum that the server keeps of it, or else by reading it, as
        its metadata may say anything. `layout`: the checksum that it would have in our parts. Raises Refused, KeyConflict.
        """
        head = await self._head(key)
        if head is None:
            raise StoreUnavailable(f"{key} was there a moment ago and is gone", hint="who deletes there?", store_key=key)
        size, kept = _length(head), head.get("x-amz-checksum-sha256", "")
        stored = b""
        if (await self.tried()).verifies:
            if kept and "-" not in kept:
                stored = _decoded(kept)
            elif kept and kept == layout and size == length:
                stored = sha256
        if stored != sha256:
            stored = stored or await self._hash_of(key)
        if stored != sha256:
            raise KeyConflict(key, stored_sha256=stored.hex(), stored_bytes=size, sha256=sha256.hex(), size=length)
        return Saved(key, size, stored.hex(), existed=True)

    async def _read_back(self, key: str, sha256: bytes) -> None:
        if await self._hash_of(key) != sha256:
            raise StoreUnavailable(
                f"{key}: what the server has is not what was sent", hint="do not use this server", store_key=key
            )

    async def _hash_of(self, key: str) -> bytes:
        digest = hashlib.sha256()
        async for block in self.read(key):
            digest.update(block)
        return digest.digest()

    def left_behind(self, multipart: Multipart, *, aside: bool) -> None:
        """An upload that could not be taken back."""
        self._stuck.append((multipart, aside))

    async def take_back(self, multipart: Multipart, *, aside: bool, interrupted: bool) -> None:
        """Remove what an upload left that was not saved. `aside`: its object was to be a temporary one. Raises Refused."""
        await multipart.abort(interrupted=interrupted)
        if aside and multipart.asked_to_complete:
            await self.wire.send("DELETE", multipart.key)

    # --- reading

    async def _head(self, key: str) -> Mapping[str, str] | None:
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
            if refused.code != "NoSuchKey":
                raise
        self._bucket_seen = True

    async def stored(self, key: str) -> bool:
        """Whether something lies under a key. Raises Refused."""
        return await self._head(key) is not None

    async def size(self, key: str) -> int | None:
        self.check_key(key)
        with translated(key):
            head = await self._head(key)
            return None if head is None else _length(head)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        self.check_key(key)
        done, failures = 0, 0
        whole: int | None = -1
        same: dict[str, str] = {}
        while whole not in (done, None):
            try:
                async with self._opened(key, done, same) as response:
                    same = {"If-Match": response.headers.get("ETag", "*")}
                    whole = None if response.content_length is None else done + response.content_length
                    async for block in response.content.iter_chunked(READ_BUFFER):
                        done += len(block)
                        failures = 0
                        yield block
            except (aiohttp.ClientError, TimeoutError) as error:
                failures += 1
                if failures == TRIES:
                    raise StoreUnavailable(
                        f"{key}: its reading broke off after {done} bytes", hint="check the network", store_key=key,
                        error=type(error).__name__,
                    ) from None  # fmt: skip

    @asynccontextmanager
    async def _opened(self, key: str, start: int, same: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {**same, "Range": f"bytes={start}-"} if start else {}
        try:
            async with self.wire.open(self.prefix + key, headers) as response:
                if start and response.status != 206:
                    raise StoreUnavailable(f"{key}: the server cannot go on reading where it broke off", store_key=key)
                yield response
        except Refused as refused:
            if refused.code == "NoSuchKey":
                raise StoreError(f"{key} is missing", store_key=key, missing=True) from None
            if refused.status == 412:
                raise StoreError(f"{key} was replaced while it was read", hint="who writes there?", store_key=key) from None
            raise refused.told(key) from None

    # --- keeping house

    async def discard(self, key: str, *, part: str, left_for: timedelta) -> bool:
        left = self._part_key(key, part)
        with translated(key):
            found = await self.stored(left)
            if found:
                await self.wire.send("DELETE", self.prefix + left)
            swept = await sweep(self.wire, self.prefix + key, left_for)
            # The temporary one's name tells whose it is, so that its age does not matter.
            return await sweep(self.wire, self.prefix + left, timedelta.min) or swept or found

    async def check(self) -> str:
        stuck, self._stuck = self._stuck, []
        for multipart, aside in stuck:
            try:
                await self.take_back(multipart, aside=aside, interrupted=False)
            except Refused as refused:
                # Whether the store works, the trial alone decides.
                self._stuck.append((multipart, aside))
                log.warning("upload_left_behind", store_key=multipart.key, error=refused.code, told=refused.message)
        at = f"s3://{self.wire.bucket}/{self.prefix}"
        with translated(at):
            await self._try()
        return f"{at} at {self.wire.site.endpoint}, overwrites nothing"

    async def free(self) -> None:
        return None

    async def advice(self) -> list[Advice]:
        with translated(f"s3://{self.wire.bucket}"):
            return await advise(self.wire, self.prefix, await self.tried())


def _length(head: Mapping[str, str]) -> int:
    try:
        return int(head.get("Content-Length", ""))
    except ValueError:
        raise Refused(200, "NoLength", "the server does not say how long the object is") from None


def _decoded(checksum: str) -> bytes:
    try:
        return base64.b64decode(checksum, validate=True)
    except binascii.Error:
        return b""


@asynccontextmanager
async def open_s3(settings: StorageSettings, buffers: Buffers) -> AsyncIterator[S3Store]:
    """The store of `storage.url`. Raises ConfigError."""
    signer = Signer(settings.s3)
    site = await asyncio.to_thread(signer.site)
    async with open_http() as http:
        wire = S3Wire(http, signer, site, settings.bucket, settings.s3.path_style)
        yield S3Store(wire, settings.prefix, settings.s3, buffers)
