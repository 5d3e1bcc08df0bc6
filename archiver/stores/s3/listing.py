"""What lies in an S3 bucket: ListObjectsV2, and ListObjectVersions where versions are asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from archiver.stores import Listed
from archiver.stores.bucket.driver import LISTED, listing_in, pages_on
from archiver.stores.bucket.refusals import Refused
from archiver.stores.s3.wire import S3Wire


async def list_objects(wire: S3Wire, prefix: str) -> AsyncGenerator[Listed, None]:
    """Those that readers see. Raises Refused."""
    query = {"list-type": "2", "prefix": prefix, "max-keys": str(LISTED), "encoding-type": "url"}
    goes_on = pages_on()
    while True:
        page = listing_in(await wire.send("GET", query=query), "ListBucketResult")
        found = [_listed(each, page) for each in page.iter("Contents")]
        for each in found:
            yield each
        if page.findtext("IsTruncated") != "true":
            return
        token = page.findtext("NextContinuationToken") or ""
        goes_on(token, len(found))
        query["continuation-token"] = token


async def list_versions(wire: S3Wire, prefix: str) -> AsyncGenerator[Listed, None]:
    """Every version that the bucket keeps, and its delete markers. Raises Refused."""
    query = {"versions": "", "prefix": prefix, "max-keys": str(LISTED), "encoding-type": "url"}
    goes_on = pages_on()
    while True:
        page = listing_in(await wire.send("GET", query=query), "ListVersionsResult")
        found = [_listed(each, page) for each in page if each.tag in ("Version", "DeleteMarker")]
        for each in found:
            yield each
        if page.findtext("IsTruncated") != "true":
            return
        key, version = _decoded(page, page.findtext("NextKeyMarker") or ""), page.findtext("NextVersionIdMarker") or ""
        goes_on(f"{key}\0{version}", len(found))
        query["key-marker"] = key
        query.pop("version-id-marker", None)
        if version:
            query["version-id-marker"] = version


def _listed(element: Element, page: Element) -> Listed:
    key, modified = element.findtext("Key"), element.findtext("LastModified") or ""
    deleted = element.tag == "DeleteMarker"
    try:
        at = datetime.fromisoformat(modified)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
        size = None if deleted else int(element.findtext("Size") or "")
    except (ValueError, OverflowError):
        raise Refused(200, "NoListing", "the server lists an object without its size or time") from None
    if not key or (size is not None and size < 0):
        raise Refused(200, "NoListing", "the server lists an object without a key or size")
    version = element.findtext("VersionId") or ""
    latest = element.findtext("IsLatest", "true") == "true"
    return Listed(_decoded(page, key), size, at, version, latest, deleted)


def _decoded(page: Element, key: str) -> str:
    """A key as it is: XML cannot hold all that a key may have. A server that does not know the encoding does not say so."""
    return unquote_plus(key) if page.findtext("EncodingType") == "url" else key
