"""Signed URLs, modelled on the vendor's sample:

    /api/getMediaStream/smartassistrecording/UAT/o-.../st-.../2024/05-03-2024/f-....wav
        ?e=1709706278&n=6398115875&s=Inpq...Ig$$

`e` is the Unix time, in seconds, after which it is dead, `n` a nonce, `s` a signature over path, `e` and `n`. A URL
counts only byte for byte: signatures hold `$$`, `+`, `%2B`, `/`, `=` and escapes that a re-encoding client would
spell differently.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

_TARGET = re.compile(r"(?P<path>/[^?#]*)\?e=(?P<e>[0-9]{1,12})&n=(?P<n>[0-9]{10})&s=[^#]*")


class SignedTarget(NamedTuple):
    """A request target (path and query) whose signature is right. `expires` is a Unix time, to the millisecond."""

    path: str
    expires: float


class UrlSigner:
    """Issues and checks signed request targets. Remembers none: what it did not sign, it does not recognise."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def sign(self, path: str, expires: float) -> str:
        """A fresh request target for `path`, dead at `expires` (Unix time, seconds).

        `e` holds whole seconds; the nonce begins with the milliseconds, so that short lifetimes are kept exactly.
        """
        milliseconds = max(0, int(expires * 1000))
        nonce = f"{milliseconds % 1000:03}{secrets.randbelow(10**7):07}"
        return self._render(path, str(milliseconds // 1000), nonce)

    def check(self, raw_target: str) -> SignedTarget | None:
        """None unless `raw_target`, as received, is byte for byte one that `sign` returned, expired or not."""
        found = _TARGET.fullmatch(raw_target)
        if found is None:
            return None
        path, seconds, nonce = found["path"], found["e"], found["n"]
        issued = self._render(path, seconds, nonce)
        if not hmac.compare_digest(issued.encode(), raw_target.encode("utf-8", "surrogateescape")):
            return None
        return SignedTarget(path, int(seconds) + int(nonce[:3]) / 1000)

    def _render(self, path: str, seconds: str, nonce: str) -> str:
        digest = hmac.digest(self._key, f"{path}|{seconds}|{nonce}".encode(), hashlib.sha256)
        text = base64.b64encode(digest).decode()
        signature = f"{text[:8]}+{text[8:16]}%2B{text[16:24]}/{text[24:32]}%2a%7E{text[32:]}"
        return f"{path}?e={seconds}&n={nonce}&s={signature}$$"
