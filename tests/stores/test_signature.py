"""Our signatures are those of AWS's own library, whatever they sign."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from archiver.stores.s3.signature import Identity, Signatures

AT = datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC)
HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


class _Theirs(S3SigV4Auth):
    def payload(self, request: Any) -> str:
        return HASH


def theirs(monkeypatch: pytest.MonkeyPatch, token: str | None, at: datetime, *request: Any) -> str:
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: at.replace(tzinfo=None))
    asked = AWSRequest(request[0], request[1], headers=dict(request[2]))
    _Theirs(ReadOnlyCredentials("AKIA", "a/secret+key", token), "s3", "eu-north-1").add_auth(asked)
    return str(asked.headers["Authorization"])


@pytest.mark.parametrize("token", [None, "A//token=="])
@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("PUT", "https://calls.s3.eu-north-1.amazonaws.com/a%20b/%C3%BC~%2B.wav"),
        ("GET", "https://s3.test:9000/calls/?list-type=2&max-keys=1000&prefix=a%2Fb"),
        ("PUT", "http://127.0.0.1:9000/calls/k?partNumber=10&uploadId=x%3D"),
        ("PUT", "http://[::1]:9000/calls/k?partNumber=9&uploadId="),
        ("POST", "https://S3.Test:443/calls/a//b/../c?uploads="),
        ("GET", "http://s3.test:80/calls/?lifecycle="),
        ("GET", "https://s3.test/calls/k?a-b=1&a=2&a%2Eb=3&a=1"),
    ],
)
def test_signatures_are_those_of_botocore(monkeypatch: pytest.MonkeyPatch, method: str, url: str, token: str | None) -> None:
    signatures, identity = Signatures(), Identity("AKIA", "a/secret+key", token, "eu-north-1")
    headers = {
        "x-amz-meta-sha256": HASH,
        "If-None-Match": "*",
        "x-amz-tagging": "kind=call%20x&by=%C3%BC",
        "x-amz-storage-class": "  STANDARD   IA ",
        "x-amz-server-side-encryption-aws-kms-key-id": "schlüssel",
        "Content-Type": "application/xml",
        "Range": "bytes=0-0",
    }
    for at in (AT, AT.replace(month=4), AT):  # the day's key is derived anew with the day
        signed = signatures.sign(identity, method, url, headers, HASH, at.timestamp())
        assert signed["Authorization"] == theirs(monkeypatch, token, at, method, url, headers)
        assert headers.items() <= signed.items()


def test_another_secret_signs_otherwise_and_none_is_shown() -> None:
    signatures = Signatures()
    identities = [Identity("AKIA", secret, None, region) for secret in ("one-secret", "two-secret") for region in ("a", "b")]
    assert len({signatures.sign(one, "GET", "https://x/", {}, HASH, 0.0)["Authorization"] for one in identities}) == 4
    assert "secret" not in repr(identities)
