"""One blob in blocks, which nobody sees before it is committed. The service forgets what is not within a week, or with any commit
under the same key; nothing takes it back before.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable

from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.refusals import Refused
from archiver.stores.bucket.wire import Body, base64_of


class Blocks:
    """The blocks of one blob, under `key` of the container."""

    def __init__(self, wire: AzureWire, key: str) -> None:
        self._wire = wire
        self.key = key
        self.lengths: dict[int, int] = {}
        self.asked_to_complete = False
        self.completed = False
        # Whoever writes under the same key shares its uncommitted blocks: none may take another's for its own.
        self._mark = secrets.token_hex(8)

    @property
    def length(self) -> int:
        """Bytes in its blocks."""
        return sum(self.lengths.values())

    async def send(self, number: int, body: Body, *, patient: bool = True) -> None:
        """Send one block, which the service holds against its MD5. Raises Refused."""
        query = {"comp": "block", "blockid": self._id(number)}
        md5 = base64_of(body.md5)
        answer = await self._wire.send("PUT", self.key, query=query, headers={"Content-MD5": md5}, body=body, patient=patient)
        if answer.headers.get("Content-MD5", md5) != md5:
            raise Refused(answer.status, "Md5Mismatch", "the server took a block for something else")
        self.lengths[number] = body.length

    async def commit(self, sha256: bytes, before: Callable[[], None] | None) -> None:
        """Make the blob of its blocks, with its hash in the metadata, unless the key is taken. Raises Refused."""
        listed = "".join(f"<Uncommitted>{self._id(number)}</Uncommitted>" for number in sorted(self.lengths))
        body = Body.of(f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()).with_md5()
        headers = {
            "If-None-Match": "*",
            "Content-MD5": base64_of(body.md5),
            "Content-Type": "application/xml",
            "x-ms-blob-content-type": "application/octet-stream",
            "x-ms-meta-sha256": sha256.hex(),
        }
        self.asked_to_complete = True
        await self._wire.send("PUT", self.key, query={"comp": "blocklist"}, headers=headers, body=body, before=before)
        self.completed = True

    def _id(self, number: int) -> str:
        """All of one blob must be of one length."""
        return base64.b64encode(f"{self._mark}{number:08d}".encode()).decode()
