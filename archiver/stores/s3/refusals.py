"""What S3 says when it refuses, and what that means: which faults pass by themselves, which concern one object, what to do."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.observe.redact import redact
from archiver.stores.bucket.refusals import Hints, Passing, Refused, parsed, text_of

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
OF_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)
"""Other credentials might be accepted."""

_PERMISSIONS = (
    "let the archiver's user do s3:PutObject, GetObject, AbortMultipartUpload, ListMultipartUploadParts, ListBucket, "
    "ListBucketMultipartUploads, GetLifecycleConfiguration and, with tags, PutObjectTagging in the bucket; with sse = aws:kms "
    "kms:GenerateDataKey and kms:Decrypt with its key, too"
)
_REGION = "set storage.s3.region to {region}, and storage.s3.endpoint, if it is set, to that region's"
_OF_THE_STORE = {
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
    "NotImplemented": "the server lacks what the archiver relies on: PUT with If-None-Match and checksums, and uploads in parts",
    "MethodNotAllowed": "is this an S3 server? check storage.s3.endpoint",
    "ClientConnectorDNSError": "check storage.s3.endpoint, storage.s3.path_style and the name server",
    "BadDigest": "what arrives is not what was sent: look at the network, or at a proxy in between",
    "NoSuchUpload": "the upload is gone: a lifecycle rule for incomplete uploads that is too quick?",
}
HINTS = Hints("s3", _OF_ONE_KEY, _OF_THE_STORE)

_BY_STATUS = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
}
"""What a refusal without a body means: the answer to a HEAD has none."""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """What an answer says. Of its body only the code, the message and the region: others repeat what was signed."""
    code, message, region = "", "", headers.get("x-amz-bucket-region", "")
    if body.lstrip().startswith(b"<"):
        try:
            root = parsed(body)
        except Refused:
            pass  # an HTML page of some proxy: its status says enough
        else:
            code, message, region = (
                text_of(root, "Code"),
                redact(text_of(root, "Message"))[:300],
                text_of(root, "Region") or region,
            )
    if not code:
        # A HEAD to the wrong region is answered so, with nothing but this header.
        code = "PermanentRedirect" if status == 400 and region else _BY_STATUS.get(status, f"HTTP {status}")
    passing = code in _PASSING or status in _PASSING_STATUS
    return (Passing if passing else Refused)(status, code, message, place=region, request_id=headers.get("x-amz-request-id", ""))
