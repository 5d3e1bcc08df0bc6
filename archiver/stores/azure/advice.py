"""What `doctor` says of a container that works, and yet should be set up otherwise: as far as the rights to its blobs show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from archiver.config import is_loopback
from archiver.stores import Advice
from archiver.stores.azure.access import SasToken
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.driver import Tried
from archiver.stores.bucket.refusals import Refused

_SOON = timedelta(days=14)


async def advise(wire: AzureWire, prefix: str, tried: Tried) -> list[Advice]:
    """All that there is to say."""
    found = []
    at = urlsplit(wire.endpoint)
    if at.scheme == "http" and not is_loopback(at.hostname or ""):
        found.append(
            Advice(f"recordings travel unencrypted to {at.hostname}: plain http", "use https:// in storage.azure.endpoint")
        )
    if isinstance(wire.access, SasToken) and _ends_soon(wire.access.until):
        found.append(
            Advice(f"the SAS token ends at {wire.access.until}", "put a new one into storage.azure.sas_token_file, and restart")
        )
    if not tried.deletes:
        found.append(
            Advice(
                f"the trial may not delete its own objects: {prefix}.check-... remain",
                "let a lifecycle rule remove what begins so, or allow it to be deleted",
            )
        )
    return [*found, *await _of_immutability(wire)]


def _ends_soon(until: str) -> bool:
    try:
        end = datetime.fromisoformat(until)
    except ValueError:
        return False
    return (end if end.tzinfo else end.replace(tzinfo=UTC)) - datetime.now(UTC) < _SOON


async def _of_immutability(wire: AzureWire) -> list[Advice]:
    """A service SAS may not ask for it; who may not know is not told."""
    try:
        kept = (await wire.send("HEAD", query={"restype": "container"})).headers
    except Refused:
        return []
    ways = [kept.get(f"x-ms-{way}", "") for way in ("has-immutability-policy", "has-legal-hold")]
    if "true" in [*ways, kept.get("x-ms-immutable-storage-with-versioning-enabled")] or "false" not in ways:
        return []
    return [
        Advice(
            "no immutability policy protects the container", "set one: then nobody, the archiver included, may remove a recording"
        )
    ]
