"""Requests as Azure's blob service wants them: where they go, what proves who sends them, what a refusal means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote

from archiver.observe.logs import logger
from archiver.stores.azure.access import Access
from archiver.stores.azure.refusals import LOCKED, NOT_DONE, OF_CREDENTIALS, refusal
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, Wire

log = logger(__name__)

VERSION = "2023-11-03"
"""Of the service's REST API."""


@dataclass(frozen=True)
class AzureWire(Wire):
    """The requests of one `az://` store. `endpoint`: the URL that containers lie below."""

    access: Access
    endpoint: str
    container: str

    def url(self, key: str = "", query: Mapping[str, str] | None = None) -> str:
        asked = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted((query or {}).items()))
        at = f"{self.endpoint}/{self.container}" + (f"/{quote(key, safe='/~')}" if key else "")
        return f"{at}?{asked}" if asked else at

    async def signed(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> tuple[str, dict[str, str]]:
        ours = {"x-ms-version": VERSION, "x-ms-date": formatdate(usegmt=True)}
        if method == "PUT":
            ours["Content-Type"] = "application/octet-stream"  # aiohttp would add it, and it is signed
        return await self.access.prove(method, url, {**ours, **headers}, body.length)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused:
        refused = refusal(status, headers, body)
        if refused.code in OF_CREDENTIALS:
            self.access.distrust()
        return refused

    def undone(self, refused: Refused) -> bool:
        return super().undone(refused) or refused.code in NOT_DONE

    def missing(self, refused: Refused) -> bool:
        return refused.code == "BlobNotFound"

    async def head(self, key: str) -> Mapping[str, str] | None:
        try:
            return (await self.send("HEAD", key)).headers
        except Refused as refused:
            if not self.missing(refused):
                raise
            return None

    def refuses_key(self, key: str) -> str:
        # On their way such dots get lost, and two keys would be one.
        return "Azure takes no name that ends with a dot" if any(part.endswith(".") for part in key.split("/")) else ""

    def keeps(self, key: str, refused: Refused) -> bool:
        if refused.code != LOCKED:
            return False
        # To try again and again would not help: it stays until the policy lets it go, and is no recording.
        log.warning("temporary_object_locked", store_key=key, error=refused.code)
        return True
