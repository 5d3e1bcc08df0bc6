"""What S3 says when it refuses, and what that means: which faults pass by themselves, which concern one object, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from archiver.errors import StoreError, StoreUnavailable

_PASSING = frozenset(
    {
        "ConditionalRequestConflict",  # 409: another conditional write to the key is under way; S3 itself says to try again
        "OperationAborted",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "BadDigest",  # the bytes that arrived are not those that were sent
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
        "IncompleteBody",
    }
)
_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})

_OF_ONE_KEY = {
    "KeyTooLongError": "shorten storage.path",
    "EntityTooLarge": "the server takes no object of this size",
    "InvalidObjectName": "the server takes no key like this: change storage.path",
    "XMinioInvalidObjectName": "the server takes no key like this: change storage.path",
    "XMinioObjectExistsAsDirectory": "an object lies in place of a folder, or the other way round: move it away",
}
"""What one key or one object alone is to blame for: the store itself is well."""

_OF_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)

_PERMISSIONS = "let the archiver's user do what docs/object-storage.md lists, in the bucket and, with sse = aws:kms, with its key"
_REGION = "set storage.s3.region to {region}, and storage.s3.endpoint, if it is set, to that region's"
_HINTS = {
    "AccessDenied": _PERMISSIONS,
    "AllAccessDisabled": _PERMISSIONS,
    "AccountProblem": "the account that owns the bucket is suspended or unpaid",
    "InvalidAccessKeyId": "the server knows no such key: check storage.s3.access_key_id, or the AWS profile or role",
    "SignatureDoesNotMatch": "check the secret access key and storage.s3.region",
    "ExpiredToken": "the session token has run out: renew it, or let a role or profile provide it",
    "InvalidToken": "the session token is not accepted: renew it, or let a role or profile provide it",
    "TokenRefreshRequired": "the session token has run out: renew it",
    "RequestTimeTooSkewed": "set this machine's clock (NTP): signatures are judged by the server's",
    "NoSuchBucket": "create the bucket, or correct storage.url",
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": "the bucket is new, and not known everywhere yet: set storage.s3.region, or try again in an hour",
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": "raise the bucket's quota, or move storage.url",
    "XMinioAdminBucketQuotaExceeded": "raise the bucket's quota, or move storage.url",
    "XMinioStorageFull": "free disk space on the server, or move storage.url",
    "InsufficientStorage": "free disk space on the server, or move storage.url",
    "InvalidStorageClass": "check storage.s3.storage_class",
    "InvalidObjectState": "the object lies in an archive class: restore it first",
    "InvalidTag": "check storage.s3.tags",
    "NotImplemented": "the server lacks what the archiver relies on: docs/object-storage.md says what that is",
    "MethodNotAllowed": "is this an S3 server? check storage.s3.endpoint",
    "NotXml": "check storage.s3.endpoint",
    "AnswerTooLong": "check storage.s3.endpoint",
    "TlsFailed": "check storage.s3.endpoint and its certificate; SSL_CERT_FILE names a file of authorities to trust",
    "ClientConnectorDNSError": "check storage.s3.endpoint, storage.s3.path_style and the name server",
    "BadDigest": "what arrives is not what was sent: look at the network, or at a proxy in between",
    "NoSuchUpload": "the upload is gone: a lifecycle rule for incomplete uploads that is too quick?",
}
_OTHERWISE = "check storage.url, storage.s3.endpoint and the network; `archiver doctor` tries each step"

_BY_STATUS = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
}
"""What a refusal without a body means: the answer to a HEAD has none."""


class Refused(Exception):
    """No 2xx. `status` is 0 where no answer came, and `code` then the name of what went wrong."""

    def __init__(self, status: int, code: str, message: str, *, region: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.region = region
        self.request_id = request_id

    @staticmethod
    def of(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
        """What an answer says. Of its body only the code, the message and the region: others repeat what was signed."""
        code, message, region = "", "", headers.get("x-amz-bucket-region", "")
        if body.lstrip().startswith(b"<"):
            try:
                root = parsed(body)
            except Refused:
                pass  # an HTML page of some proxy: its status says enough
            else:
                code, message, region = text_of(root, "Code"), text_of(root, "Message")[:300], text_of(root, "Region") or region
        if not code:
            # A HEAD to the wrong region is answered so, with nothing but this header.
            code = "PermanentRedirect" if status == 400 and region else _BY_STATUS.get(status, f"HTTP {status}")
        passing = code in _PASSING or status in _PASSING_STATUS
        return (Passing if passing else Refused)(
            status, code, message, region=region, request_id=headers.get("x-amz-request-id", "")
        )

    @property
    def of_credentials(self) -> bool:
        """Whether others might be accepted."""
        return self.code in _OF_CREDENTIALS

    def told(self, key: str) -> StoreError:
        """The same as an error of ours, about a key of the store."""
        kind = StoreError if self.code in _OF_ONE_KEY else StoreUnavailable
        hint = _OF_ONE_KEY.get(self.code) or _HINTS.get(self.code) or _OTHERWISE
        facts: dict[str, Any] = {"store_key": key, "error": self.code}
        if self.status:
            facts["http_status"] = self.status
        if self.request_id:
            facts["request_id"] = self.request_id
        what = f"{self.code}: {self.message}" if self.status and self.message else self.message or self.code
        return kind(f"{key}: {what}", hint=hint.format(region=self.region or "the bucket's region"), **facts)


class Passing(Refused):
    """It may be different in a moment."""


def parsed(body: bytes) -> ElementTree.Element:
    """A document of S3, without namespaces. Raises Refused if it is none."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314  # expat bounds what entities grow to, and the wire the document
    except ElementTree.ParseError:
        raise Refused(200, "NotXml", "the answer is not XML: is this an S3 server?") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text_of(element: ElementTree.Element, tag: str) -> str:
    """The text of a child, empty if there is none."""
    return (element.findtext(tag) or "").strip()


@contextmanager
def translated(key: str) -> Iterator[None]:
    """Turn refusals into errors of ours; those that are some already learn which key they are about."""
    try:
        yield
    except StoreError as error:
        error.facts.setdefault("store_key", key)
        raise
    except Refused as refused:
        raise refused.told(key) from None
