"""What `doctor` says of a bucket that works, and yet should be set up otherwise."""

from __future__ import annotations

from urllib.parse import urlsplit

from archiver.config import is_loopback
from archiver.stores import Advice
from archiver.stores.bucket.driver import Tried
from archiver.stores.bucket.refusals import Refused, text_of
from archiver.stores.s3.wire import S3Wire

_ADD_RULE = "add a lifecycle rule with AbortIncompleteMultipartUpload, of a few days, for the whole bucket or this prefix"


async def advise(wire: S3Wire, prefix: str, tried: Tried) -> list[Advice]:
    """All that there is to say. Raises StoreError."""
    found = []
    at = urlsplit(wire.site.endpoint)
    if at.scheme == "http" and not is_loopback(at.hostname or ""):
        found.append(Advice(f"recordings travel unencrypted to {at.hostname}: plain http", "use https:// in storage.s3.endpoint"))
    if not tried.verifies:
        found.append(
            Advice(
                "the server does not hold what arrives against its SHA-256: MD5, or reading it back, takes its place",
                "use a version of it that knows x-amz-checksum-sha256, if there is one",
            )
        )
    if not tried.deletes:
        found.append(
            Advice(
                f"the trial may not delete its own objects: {prefix}.check-... remain",
                "allow s3:DeleteObject for keys that begin so, or let a lifecycle rule remove them",
            )
        )
    return [*found, *await _of_leftovers(wire, prefix)]


async def _of_leftovers(wire: S3Wire, prefix: str) -> list[Advice]:
    """A killed process leaves an upload in parts, invisible and paid for. It is swept as a rule; a lifecycle rule is sure."""
    try:
        rules = (await wire.send("GET", query={"lifecycle": ""})).xml()
    except Refused as refused:
        match refused.status:
            case 404:
                return [Advice("no lifecycle rule ends incomplete uploads", _ADD_RULE)]
            case 403:
                return [Advice("whether a lifecycle rule ends incomplete uploads may not be read", _ADD_RULE)]
            case 400 | 405 | 501:
                return []  # a server that knows no such rules
            case _:
                return [Advice(f"whether a lifecycle rule ends incomplete uploads cannot be read: {refused.code}", _ADD_RULE)]
    for rule in rules.iter("Rule"):
        covers = rule.findtext("Filter/Prefix") or rule.findtext("Prefix") or ""
        narrowed = any(rule.find(f"Filter/{by}") is not None for by in ("And", "Tag"))
        ends = rule.find("AbortIncompleteMultipartUpload/DaysAfterInitiation") is not None
        if ends and text_of(rule, "Status") == "Enabled" and prefix.startswith(covers) and not narrowed:
            return []
    return [Advice("no lifecycle rule ends incomplete uploads", _ADD_RULE)]
