"""What lies in an Azure container: List Blobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC
from email.utils import parsedate_to_datetime
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from archiver.stores import Listed
from archiver.stores.azure.wire import AzureWire
from archiver.stores.bucket.driver import LISTED, listing_in, pages_on
from archiver.stores.bucket.refusals import Refused


async def list_blobs(wire: AzureWire, prefix: str, *, versions: bool) -> AsyncGenerator[Listed, None]:
    """Those that readers see; with `versions` also what the account keeps of others. Raises Refused."""
    query = {"restype": "container", "comp": "list", "prefix": prefix, "maxresults": str(LISTED)}
    if versions:
        query["include"] = "deleted,versions"
    goes_on = pages_on()
    while True:
        page = listing_in(await wire.send("GET", query=query), "EnumerationResults")
        # An account with a hierarchical namespace lists its folders as well.
        found = [_listed(blob) for blob in page.iter("Blob") if blob.findtext("Properties/ResourceType") != "directory"]
        if versions:
            # The service has the oldest first. Those of one key may go on in the next page.
            found.sort(key=lambda each: (each.key.encode(), not each.latest, -each.modified.timestamp()))
        for each in found:
            yield each
        marker = page.findtext("NextMarker") or ""
        if not marker:
            return
        goes_on(marker, len(found))
        query["marker"] = marker


def _listed(blob: Element) -> Listed:
    name = blob.find("Name")
    key = "" if name is None else name.text or ""
    if name is not None and name.get("Encoded") == "true":
        key = unquote(key)
    try:
        at = parsedate_to_datetime(blob.findtext("Properties/Last-Modified") or "").astimezone(UTC)
        size = int(blob.findtext("Properties/Content-Length") or "")
    except (ValueError, OverflowError):
        raise Refused(200, "NoListing", "the server lists a blob without its size or time") from None
    if not key or size < 0:
        raise Refused(200, "NoListing", "the server lists a blob without a name or size")
    deleted = blob.findtext("Deleted") == "true"
    version = blob.findtext("VersionId") or ""
    latest = not deleted and (not version or blob.findtext("IsCurrentVersion") == "true")
    return Listed(key, size, at, version, latest, deleted)
