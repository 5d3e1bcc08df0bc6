"""What Azure's blob service says when it refuses, and what that means."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.observe.redact import redact
from archiver.stores.bucket.refusals import Hints, Passing, Refused, parsed, text_of

_PASSING = frozenset(
    {
        "InternalError",
        "OperationTimedOut",
        "ServerBusy",
        "Md5Mismatch",  # the bytes that arrived are not those that were sent
    }
)
_PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})

NOT_DONE = frozenset({"ServerBusy"})
"""What the service says before it does anything."""

LOCKED = "BlobImmutableDueToPolicy"
"""Nobody may remove or replace the blob yet."""

TAKEN = frozenset(
    {
        "BlobAlreadyExists",
        "ConditionNotMet",
        "UnauthorizedBlobOverwrite",  # a SAS that allows to create, and not to write
        LOCKED,
    }
)
"""A key holds something already."""

OF_CREDENTIALS = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo", "NoAuthenticationInformation"})
"""Other credentials might be accepted."""

_OF_ONE_KEY = {
    "BlockCountExceedsLimit": "the object has too many blocks: raise storage.azure.part_size",
    "InvalidResourceName": "the service takes no key like this: change storage.path",
    "InvalidUri": "the service takes no key like this: change storage.path",
    "RequestBodyTooLarge": "lower storage.azure.part_size",
}

_CREDENTIALS = "check [storage.azure]: the key, the SAS token (and the time it ends), or the identity; and this machine's clock"
_PERMISSIONS = (
    "let the archiver's identity or SAS read, write and delete blobs and list them in the container: the role Storage Blob Data "
    "Contributor"
)
_OF_THE_STORE = {
    "AuthenticationFailed": _CREDENTIALS,
    "InvalidAuthenticationInfo": _CREDENTIALS,
    "NoAuthenticationInformation": _CREDENTIALS,
    "AuthorizationFailure": "the account's network rules keep this machine out, or the SAS has no such right: let "
    "it read, write, delete and list",
    "AuthorizationPermissionMismatch": _PERMISSIONS,
    "AuthorizationProtocolMismatch": "the SAS is for https:// alone: correct storage.azure.endpoint",
    "AuthorizationResourceTypeMismatch": _PERMISSIONS,
    "AuthorizationServiceMismatch": "the SAS is for another service than blobs",
    "AuthorizationSourceIPMismatch": "the SAS is for other addresses than this machine's",
    "InsufficientAccountPermissions": _PERMISSIONS,
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: empty storage.azure.account_key, and use an identity",
    "AccountIsDisabled": "the storage account is disabled",
    "ClientConnectorDNSError": "check storage.azure.account, storage.azure.endpoint and the name server",
    "ContainerBeingDeleted": "the container is being deleted: create it again in a while, or correct storage.url",
    "ContainerDisabled": "the container is disabled",
    "ContainerNotFound": "create the container, or correct storage.url",
    "BlobArchived": "the object lies in the archive tier: rehydrate it first",
    "InvalidBlockList": "its blocks are gone: does something else write under this key?",
    "Md5Mismatch": "what arrives is not what was sent: look at the network, or at a proxy in between",
    "NotImplemented": "the server lacks what the archiver relies on: blobs in blocks, and If-None-Match",
}
HINTS = Hints("azure", _OF_ONE_KEY, _OF_THE_STORE)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refused:
    """What an answer says: its code, which the answer to a HEAD has as well, and its message's first line."""
    code, message = headers.get("x-ms-error-code", ""), ""
    document = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if document.startswith(b"<"):
        try:
            root = parsed(document)
        except Refused:
            pass  # an HTML page of some proxy: its status says enough
        else:
            code, message = code or text_of(root, "Code"), redact(text_of(root, "Message").partition("\n")[0])[:300]
    code = code or f"HTTP {status}"
    passing = code in _PASSING or status in _PASSING_STATUS
    return (Passing if passing else Refused)(status, code, message, request_id=headers.get("x-ms-request-id", ""))
