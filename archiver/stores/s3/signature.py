"""Signatures of requests to S3: "Signature Version 4", whose every step the S3 API reference has. A test holds them against
botocore's, which takes eight times as long: it builds a message of `email` for each, and derives the day's key anew.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Identity:
    """Credentials, with what they sign for. Its `repr` has no secret in it."""

    access_key: str
    secret_key: str
    token: str | None
    region: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.access_key}, {self.region})"


class Signatures:
    """Signs; keeps what many requests have in common: the day's key, and what their origins are called."""

    def __init__(self) -> None:
        self._key_of: tuple[Identity, str] | None = None
        self._key = b""
        self._hosts: dict[str, str] = {}

    def sign(
        self, identity: Identity, method: str, url: str, headers: Mapping[str, str], body_sha256: str, at: float | None = None
    ) -> dict[str, str]:
        """`headers` and those of the signature, for a request at that time of the clock (now). `url` is escaped already, has a
        path, and goes out as it is; `body_sha256` is in hexadecimal.
        """
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
        signed = {**headers, "X-Amz-Date": now, "X-Amz-Content-SHA256": body_sha256}
        if identity.token:
            signed["X-Amz-Security-Token"] = identity.token
        origin, path, query = self._split(url)
        # White space within a value counts as one space, at its ends as none.
        named = sorted([("host", self._hosts[origin]), *((name.lower(), " ".join(signed[name].split())) for name in signed)])
        names = ";".join([name for name, _ in named])
        canonical = (
            f"{method}\n{path}\n{'&'.join(sorted(query.split('&'), key=_by_name)) if query else ''}\n"
            + "".join([f"{name}:{value}\n" for name, value in named])
            + f"\n{names}\n{body_sha256}"
        )
        day = now[:8]
        scope = f"{day}/{identity.region}/s3/aws4_request"
        to_sign = f"{_ALGORITHM}\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._day_key(identity, day), to_sign.encode(), "sha256").hex()
        signed["Authorization"] = (
            f"{_ALGORITHM} Credential={identity.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return signed

    def _split(self, url: str) -> tuple[str, str, str]:
        """An URL's origin, path and query."""
        at = url.index("/", url.index("://") + 3)
        origin = url[:at]
        if origin not in self._hosts:
            self._hosts[origin] = _host_of(origin)
        path, _, query = url[at:].partition("?")
        return origin, path, query

    def _day_key(self, identity: Identity, day: str) -> bytes:
        if self._key_of != (identity, day):
            key = f"AWS4{identity.secret_key}".encode()
            for step in (day, identity.region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._key_of, self._key = (identity, day), key
        return self._key


def _host_of(origin: str) -> str:
    """As requests name it: with the port unless it is the scheme's own, without a dot at the end."""
    at = urlsplit(origin)
    host = f"[{at.hostname}]" if ":" in (at.hostname or "") else (at.hostname or "").rstrip(".")
    return host if at.port in (None, _DEFAULT_PORTS.get(at.scheme)) else f"{host}:{at.port}"


def _by_name(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return name, value
