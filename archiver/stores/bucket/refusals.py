"""Refusals of a bucket's server in words of ours: which concern one object, and what to do about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from archiver.errors import StoreError, StoreUnavailable

MAX_WORD, MAX_MESSAGE = 200, 1000
"""Characters of what a server says that are kept."""


@dataclass(frozen=True)
class Hints:
    """What to do about each code of a kind of server. `of_one_key`: those that one key or one object alone is to blame for; the
    store itself is well.
    """

    section: str
    of_one_key: Mapping[str, str]
    of_the_store: Mapping[str, str]

    def of(self, code: str) -> str:
        """What to do about a code, whichever it is."""
        endpoint = f"storage.{self.section}.endpoint"
        of_the_wire = {
            "NotXml": f"check {endpoint}",
            "AnswerTooLong": f"check {endpoint}",
            "TlsFailed": f"check {endpoint} and its certificate; network.ca_bundle names a file of further authorities to trust",
            "ProxyFault": "check network.proxy, or HTTPS_PROXY where that is empty, and what the proxy lets through",
            "ClientConnectorDNSError": f"check {endpoint} and the name server",
        }
        otherwise = f"check storage.url, {endpoint} and the network; `archiver doctor` tries each step"
        return self.of_one_key.get(code) or self.of_the_store.get(code) or of_the_wire.get(code) or otherwise


class Refused(Exception):
    """No 2xx. `status` is 0 where no answer came, and `code` then the name of what went wrong. `place`: where the server says
    that the bucket is.
    """

    def __init__(self, status: int, code: str, message: str, *, place: str = "", request_id: str = "") -> None:
        # Each session that meets it keeps it: no server may fill the history.
        self.status = status
        self.code = code[:MAX_WORD]
        self.message = message[:MAX_MESSAGE]
        self.place = place[:MAX_WORD]
        self.request_id = request_id[:MAX_WORD]
        super().__init__(self.message)

    def as_store_error(self, key: str, hints: Hints) -> StoreError:
        """The same as an error of ours, about a key of the store."""
        kind = StoreError if self.code in hints.of_one_key else StoreUnavailable
        facts: dict[str, Any] = {"store_key": key, "error": self.code}
        if self.status:
            facts["http_status"] = self.status
        if self.request_id:
            facts["request_id"] = self.request_id
        what = f"{self.code}: {self.message}" if self.status and self.message else self.message or self.code
        hint = hints.of(self.code).format(region=self.place or "the bucket's region")
        return kind(f"{key}: {what}", hint=hint, **facts)


class Passing(Refused):
    """It may be different in a moment."""


def parsed(body: bytes) -> ElementTree.Element:
    """An answer's document, without namespaces. Raises Refused if it is none."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat bounds what entities grow to, and the wire the document
    except (ElementTree.ParseError, ValueError, LookupError):  # the latter two of encodings that nobody knows
        raise Refused(200, "NotXml", "the answer is not XML: is this the right kind of server?") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text_of(element: ElementTree.Element, tag: str) -> str:
    """The text of a child, empty if there is none."""
    return (element.findtext(tag) or "").strip()


@contextmanager
def translated(key: str, hints: Hints) -> Iterator[None]:
    """Turn refusals into errors of ours; those that are some already learn which key they are about."""
    try:
        yield
    except StoreError as error:
        error.facts.setdefault("store_key", key)
        raise
    except Refused as refused:
        raise refused.as_store_error(key, hints) from None
