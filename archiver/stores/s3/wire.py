"""Requests as S3 wants them: where they go, how they are signed, what a refusal means."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import quote, urlsplit

from archiver.config import is_loopback
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Answer, Body, Wire
from archiver.stores.s3.refusals import OF_CREDENTIALS, refusal
from archiver.stores.s3.signing import Signer, Site

NOT_DONE = frozenset({"SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "Throttling", "ThrottlingException"})
"""What a server says before it does anything."""


@dataclass(frozen=True)
class S3Wire(Wire):
    """The requests of one `s3://` store."""

    signer: Signer
    site: Site
    bucket: str
    path_style: bool
    bucket_seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an answer has shown that the bucket is there."""

    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        """An empty value in `query` is a name alone."""
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted((query or {}).items()))
        return f"{self._at}/{quote(key, safe='/~')}" + (f"?{asked}" if asked else "")

    @cached_property
    def _at(self) -> str:
        """The bucket's URL."""
        at = urlsplit(self.site.endpoint)
        # A wildcard certificate covers one label, and an address has no subdomains.
        in_path = self.path_style or "." in self.bucket or is_loopback(at.hostname or "") or _is_address(at.hostname or "")
        host, path = (at.netloc, f"{at.path}/{self.bucket}") if in_path else (f"{self.bucket}.{at.netloc}", at.path)
        return f"{at.scheme}://{host.lower()}{path}"  # as signatures name it: aiohttp sends it as it stands here

    async def signed(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> tuple[str, dict[str, str]]:
        return url, await self.signer.sign(method, url, headers, region=self.site.region, body_sha256=body.sha256.hex())

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused:
        refused = refusal(status, headers, body)
        if refused.code in OF_CREDENTIALS:
            self.signer.distrust()
        return refused

    def belied(self, answer: Answer) -> Refused | None:
        # What takes long is answered before it is done, and an error then stands in the body of a 200.
        return refusal(answer.status, answer.headers, answer.body) if b"<Error" in answer.body.lstrip()[:200] else None

    def undone(self, refused: Refused) -> bool:
        return super().undone(refused) or refused.code in NOT_DONE

    def missing(self, refused: Refused) -> bool:
        return refused.code == "NoSuchKey"

    async def head(self, key: str) -> Mapping[str, str] | None:
        try:
            found = await self.send("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
        except Refused as refused:
            if refused.status != 404:
                raise
            if not self.bucket_seen.is_set():
                await self._see_bucket(key)
            return None
        self.bucket_seen.set()
        return found.headers

    async def _see_bucket(self, key: str) -> None:
        """A HEAD that finds nothing does not say whether it is the object that is missing or the bucket."""
        try:
            await self.send("GET", key, headers={"Range": "bytes=0-0"})
        except Refused as refused:
            if not self.missing(refused):
                raise
        self.bucket_seen.set()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
