"""Who we are to Azure: an account's key, a SAS, or an identity as Azure's own library finds it and renews its tokens."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from archiver.config import AzureSettings
from archiver.errors import ConfigError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.observe.redact import forget_secret, redact, remember_secret
from archiver.runtime.network import DIRECT, Network

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

log = logger(__name__)

SCOPE = "https://storage.azure.com/.default"

RENEW_SECONDS = 300.0
"""A token that lasts no longer than this is renewed."""

LAST_SECONDS = 30.0
"""With so few seconds left it is not used any more; before, it is, if no other can be had."""

LOOKUP_SECONDS = 120.0
"""How long a token is waited for: the library has no limit for a service that answers byte by byte."""

_MESSAGE = 1000
"""Characters of the library's error: it says of each place that it looked at what was missing there."""

# What goes wrong with credentials, we say in one line of ours; the library would log each of a dozen places that it looked at.
logging.getLogger("azure.identity").setLevel(logging.CRITICAL)


class Access(Protocol):
    """What proves who we are. Its `repr` has no secret in it."""

    async def prove(self, method: str, url: str, headers: Mapping[str, str], length: int) -> tuple[str, dict[str, str]]:
        """The URL and the headers of a request whose body has `length` bytes, with the proof. Raises StoreUnavailable."""

    def distrust(self) -> None:
        """The service refused it: look for another one, where there may be one."""

    async def aclose(self) -> None:
        """Give up what it holds."""


class SharedKey:
    """The account's key, with which each request is signed.

    The parts of the signature are those of "Authorize with Shared Key" in the REST reference; a test holds it against Azure's
    own client.
    """

    def __init__(self, account: str, key: str) -> None:
        self._account = account
        try:
            self._key = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise ConfigError(
                "storage.azure: the account key must be Base64", hint="copy it whole, as the portal shows it"
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._account})"

    async def prove(self, method: str, url: str, headers: Mapping[str, str], length: int) -> tuple[str, dict[str, str]]:
        named = {name.lower(): value for name, value in headers.items()} | {"content-length": str(length or "")}
        at = urlsplit(url)
        # Azure sorts these in a way of its own, in which hyphens weigh nothing; for the few that we send it comes to the same.
        own = [f"{name}:{value}" for name, value in sorted(named.items()) if name.startswith("x-ms-")]
        asked = [f"{name}:{value}" for name, value in sorted(parse_qsl(at.query, keep_blank_values=True))]
        to_sign = [method, *(named.get(name, "") for name in _SIGNED), *own, f"/{self._account}{at.path}", *asked]
        digest = hmac.digest(self._key, "\n".join(to_sign).encode(), hashlib.sha256)
        return url, {**headers, "Authorization": f"SharedKey {self._account}:{base64.b64encode(digest).decode()}"}

    def distrust(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


_SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date", "if-modified-since",
    "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip


class SasToken:
    """A signature over rights to a container, made by whoever has a key; it goes along with each request."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __repr__(self) -> str:
        return f"{type(self).__name__}(until {self.until or '?'})"

    @property
    def until(self) -> str:
        """When it ends, as ISO 8601 has it; empty where a policy of the container says so."""
        return dict(parse_qsl(self._token)).get("se", "")

    async def prove(self, method: str, url: str, headers: Mapping[str, str], length: int) -> tuple[str, dict[str, str]]:
        return f"{url}{'&' if '?' in url else '?'}{self._token}", dict(headers)

    def distrust(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class Identity:
    """An identity of Entra: its token is renewed in time, one renewal at a time."""

    def __init__(self, credential: AsyncTokenCredential) -> None:
        self._credential = credential
        self._token = ""
        self._until = 0.0
        self._renewing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._credential).__name__})"

    async def prove(self, method: str, url: str, headers: Mapping[str, str], length: int) -> tuple[str, dict[str, str]]:
        if not self._lasts(RENEW_SECONDS):
            async with self._renewing:
                if not self._lasts(RENEW_SECONDS):
                    await self._renew()
        return url, {**headers, "Authorization": f"Bearer {self._token}"}

    def _lasts(self, seconds: float) -> bool:
        return self._until - time.time() > seconds

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await self._credential.get_token(SCOPE)
        except Exception as error:  # noqa: BLE001  # whatever a provider raises: there are a dozen of them
            message = redact(" ".join(str(error).split()))[:_MESSAGE] or f"no answer within {LOOKUP_SECONDS:g} s"
            if not self._lasts(LAST_SECONDS):
                raise StoreUnavailable(
                    f"no credentials for Azure: {message}",
                    hint="check the managed identity, the workload identity or AZURE_CLIENT_ID and its like; or set "
                    "storage.azure.account_key_file or sas_token_file",
                    error=type(error).__name__,
                ) from None
            log.warning("credential_renewal_failed", error=type(error).__name__, message=message)
            return
        former, self._token, self._until = self._token, found.token, float(found.expires_on)
        if former != self._token:
            forget_secret(former)
        remember_secret(self._token)

    def distrust(self) -> None:
        self._until = 0.0

    async def aclose(self) -> None:
        await self._credential.close()


def access_of(settings: AzureSettings, network: Network = DIRECT) -> Access:
    """As the settings say. Raises ConfigError, and ModuleNotFoundError where an identity is needed and the extra is not there."""
    if key := settings.key():
        return SharedKey(settings.account_name, key)
    if token := settings.sas():
        return SasToken(token)
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.identity.aio import DefaultAzureCredential

    class OurWay(AioHttpTransport):  # type: ignore[misc]  # which is looked up when it is asked for
        """Its own sessions look for proxies in the environment, and ask the instance's metadata by them."""

        session: aiohttp.ClientSession | None

        async def open(self) -> None:
            self.session = self.session or network.session()
            await super().open()

    try:
        return Identity(DefaultAzureCredential(transport=OurWay()))
    except ValueError as error:
        raise ConfigError(f"storage.azure: {error}", hint="check the variables AZURE_... of the environment") from None
