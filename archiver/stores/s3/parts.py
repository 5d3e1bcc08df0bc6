"""One multipart upload: begun, sent part by part, completed or aborted. Nobody sees anything of it before it is completed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from xml.sax.saxutils import escape

from archiver.stores import ANY_FILE
from archiver.stores.bucket.refusals import Refused, text_of
from archiver.stores.bucket.wire import Answer, Body, base64_of
from archiver.stores.s3.wire import S3Wire

SECOND = timedelta(seconds=1)
"""What ages are uncertain by: some servers name whole seconds only."""

_XML = {"Content-Type": "application/xml"}


@dataclass(frozen=True)
class Part:
    """One part that the server has. `confirmed`: its answer proved that it has these very bytes."""

    number: int
    length: int
    sha256: bytes
    etag: str
    confirmed: bool


def composite(parts: list[Part]) -> str:
    """What S3 calls the checksum of an object in parts: the hash of their hashes, and their number."""
    return f"{base64_of(hashlib.sha256(b''.join(part.sha256 for part in parts)).digest())}-{len(parts)}"


class Multipart:
    """The upload of one object, to `key` of the bucket."""

    def __init__(self, wire: S3Wire, key: str) -> None:
        self._wire = wire
        self.key = key
        self._id = ""
        self._lost_begin = False
        self._begun_by = time.monotonic()
        self._checksums = False
        self.parts: list[Part] = []
        self.asked_to_complete = False
        self.completed = False
        self._aborted = False

    @property
    def length(self) -> int:
        """Bytes in its parts."""
        return sum(part.length for part in self.parts)

    async def begin(self, headers: Mapping[str, str], *, checksums: bool = True) -> None:
        """Have it begun; with `checksums` the server keeps those of its parts, and wants them all named. Raises Refused."""
        self._checksums = checksums
        lost: list[bool] = []
        self._lost_begin = True
        kept = {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "COMPOSITE"} if checksums else {}
        try:
            answer = await self._wire.send(
                "POST", self.key, query={"uploads": ""}, headers={**kept, **headers}, on_lost=lambda: lost.append(True)
            )
        except Refused:
            self._lost_begin = bool(lost)
            raise
        finally:
            self._begun_by = time.monotonic()
        self._id = text_of(answer.xml(), "UploadId")
        if not self._id:
            raise Refused(200, "NotXml", "the answer names no upload: is this an S3 server?")
        self._lost_begin = bool(lost)

    async def send(self, number: int, body: Body, proof: Mapping[str, str], proven: Callable[[Answer], bool]) -> None:
        """Send one part. `proof` are headers for the server to hold it against, `proven` says whether it did. Raises Refused."""
        answer = await self._wire.send("PUT", self.key, query=self._query(number), headers=proof, body=body)
        self.parts.append(Part(number, body.length, body.sha256, answer.etag, proven(answer)))

    async def copy(self, source: Multipart, headers: Mapping[str, str]) -> None:
        """Fill it with the object that `source` has become, part by part, as a server copies no more than 5 GiB at once. Raises
        Refused.
        """
        start = 0
        for part in source.parts:
            span = {"x-amz-copy-source-range": f"bytes={start}-{start + part.length - 1}"}
            answer = await self._wire.send("PUT", self.key, query=self._query(part.number), headers={**headers, **span})
            copied = answer.xml()
            checksum = text_of(copied, "ChecksumSHA256")
            proven = checksum == base64_of(part.sha256)
            if checksum and not proven:
                raise Refused(200, "BadDigest", f"the server copied part {part.number} to something else")
            self.parts.append(Part(part.number, part.length, part.sha256, text_of(copied, "ETag"), proven))
            start += part.length

    async def complete(self, before: Callable[[], None] | None) -> Answer:
        """Make the object of its parts, unless the key is taken. Raises Refused."""
        self.parts.sort(key=lambda part: part.number)
        listed = "".join(
            f"<Part><ETag>{escape(part.etag)}</ETag><PartNumber>{part.number}</PartNumber>"
            + (f"<ChecksumSHA256>{base64_of(part.sha256)}</ChecksumSHA256>" if self._checksums else "")
            + "</Part>"
            for part in self.parts
        )
        document = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{listed}</CompleteMultipartUpload>'
        self.asked_to_complete = True
        answer = await self._wire.send(
            "POST",
            self.key,
            query=self._query(),
            headers={"If-None-Match": "*", **_XML},
            body=Body.of(document.encode()),
            before=before,
        )
        self.completed = True
        return answer

    async def abort(self, *, interrupted: bool) -> None:
        """Take it back. `interrupted`: a part was under way, and may arrive after all. Raises Refused."""
        if self._id and not (self.completed or self._aborted):
            await abort(self._wire, self.key, self._id)
            if interrupted and await self._still_there():
                await abort(self._wire, self.key, self._id)
            self._aborted = True
        if self._lost_begin:
            # An answer to its beginning was lost: there may be one more, whose ID nobody knows. One that is younger is another
            # worker's, to which the session has gone meanwhile.
            since = timedelta(seconds=time.monotonic() - self._begun_by)
            async for left in uploads(self._wire, self.key):
                if left.key == self.key and left.age + SECOND >= since:
                    await abort(self._wire, left.key, left.id)
            self._lost_begin = False

    async def _still_there(self) -> bool:
        try:
            await self._wire.send("GET", self.key, query=self._query())
        except Refused as refused:
            if refused.status not in (403, 404):
                raise
            return refused.status == 403  # we may not know, and to abort it again does no harm
        return True

    def _query(self, number: int = 0) -> dict[str, str]:
        return {"uploadId": self._id} | ({"partNumber": str(number)} if number else {})


@dataclass(frozen=True)
class Begun:
    """An upload that the server knows of. `age` by its own clock; at most a second too long, as some name no smaller times."""

    key: str
    id: str
    age: timedelta


async def uploads(wire: S3Wire, prefix: str) -> AsyncIterator[Begun]:
    """The uploads to keys with this prefix that are neither completed nor aborted. Raises Refused."""
    # No encoding-type: some servers say that they encode keys, and don't. Ours have nothing that XML could not carry.
    query = {"uploads": "", "prefix": prefix}
    while True:
        answer = await wire.send("GET", query=query)
        listed = answer.xml()
        now = _instant(answer.headers["Date"], parsedate_to_datetime) if "Date" in answer.headers else datetime.now(UTC)
        last = ("", "")
        for upload in listed.iter("Upload"):
            last = (upload.findtext("Key") or "", text_of(upload, "UploadId"))
            yield Begun(*last, now - _instant(text_of(upload, "Initiated"), datetime.fromisoformat))
        if text_of(listed, "IsTruncated") != "true" or not last[0]:
            return
        # Some servers leave the first marker out, where it is that of the last upload listed.
        query["key-marker"] = listed.findtext("NextKeyMarker") or last[0]
        query["upload-id-marker"] = text_of(listed, "NextUploadIdMarker") or last[1]


def _instant(text: str, parse: Callable[[str], datetime]) -> datetime:
    try:
        found = parse(text)
    except ValueError:
        raise Refused(200, "NotXml", f'"{text}" is no instant: is this an S3 server?') from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


async def sweep(wire: S3Wire, key: str, left_for: timedelta) -> bool:
    """Abort the uploads to `key`, in which ANY_FILE may stand for a name, that were begun longer than `left_for` ago. True if
    there were any. Raises Refused.
    """
    before, any_file, after = key.partition(ANY_FILE)
    found = False
    async for upload in uploads(wire, before):
        name = upload.key.removeprefix(before).removesuffix(after)
        same = before + name + after == upload.key and ("/" not in name if any_file else not name)
        # A second more: on a server that names whole seconds only, one may look older than it is.
        if same and upload.age - SECOND > left_for:
            await abort(wire, upload.key, upload.id)
            found = True
    return found


async def abort(wire: S3Wire, key: str, upload_id: str) -> None:
    """Remove an upload and its parts; one that is gone is all right. Raises Refused."""
    try:
        await wire.send("DELETE", key, query={"uploadId": upload_id})
    except Refused as refused:
        if refused.code != "NoSuchUpload":
            raise
