"""Who we are to S3 and where it is: both as botocore finds them, so that a machine set up for AWS needs no further setting.

Only this module knows botocore. Of it we use what would be unwise to write again: the chain of credentials (environment, profile,
assumed role, web identity, container, instance), their renewal, and the endpoints of every region and partition.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import botocore.session
from botocore.config import Config
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import Credentials, InstanceMetadataProvider, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session, where
from yarl import URL

from archiver.config import S3Settings
from archiver.errors import ConfigError, StoreUnavailable
from archiver.observe.logs import logger
from archiver.observe.redact import forget_secret, remember_secret
from archiver.runtime.cancellation import in_thread
from archiver.runtime.network import DIRECT, Network
from archiver.stores.s3.signature import Identity, Signatures

log = logger(__name__)

DEFAULT_REGION = "us-east-1"
"""What servers other than AWS call theirs, unless they are told otherwise."""

RENEW_SECONDS = 60.0
"""Credentials that are about to run out are renewed no more often than this, while they still last: a service that hands out
short ones, or none for now, must not be asked for every request.
"""

LAST_SECONDS = 30
"""With so many seconds left they are renewed whenever they are needed."""

LOOKUP_SECONDS = 120.0
"""How long they are waited for: the services that are asked may hang, or answer byte by byte, for which botocore has no limit."""

# What goes wrong with credentials, we say in one line of ours; botocore would log it with a traceback besides.
logging.getLogger("botocore.credentials").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Site:
    """Where a store's requests go. `endpoint` is an URL without the bucket; `region` is what signatures name."""

    endpoint: str
    region: str


class Signer:
    """Signs requests with credentials that are renewed in time, one renewal at a time and never on the event loop."""

    def __init__(self, settings: S3Settings, network: Network = DIRECT) -> None:
        self._settings = settings
        self._network = network
        self._authorities = _authorities(network)
        self._session = self._begin()
        self._source: Credentials | None = None
        self._current: ReadOnlyCredentials | None = None
        self._signatures = Signatures()
        self._identity: tuple[ReadOnlyCredentials, Identity] | None = None
        self._renewed_at = 0.0
        self._renewing = asyncio.Lock()
        self._finding: asyncio.Future[tuple[Credentials, ReadOnlyCredentials]] | None = None
        self._found_by = 0.0

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.access_key_id or self._settings.profile or 'AWS chain'})"

    def _begin(self) -> botocore.session.Session:
        return _session(self._settings, self._network, self._authorities.name if self._authorities else None)

    def close(self) -> None:
        """Give up what it holds."""
        if self._authorities is not None:
            self._authorities.close()

    def site(self) -> Site:
        """Where to send requests; blocks. Raises ConfigError."""
        region = self._settings.region or self._session.get_config_variable("region") or ""
        if self._settings.endpoint:
            return Site(self._settings.endpoint, region or DEFAULT_REGION)
        try:
            # A client is the public way to botocore's knowledge of endpoints: partitions, dual stack, FIPS, AWS_ENDPOINT_URL_S3.
            # It is given a key, lest it look for one already.
            client = self._session.create_client(
                "s3",
                region_name=region or None,
                aws_access_key_id="-",
                aws_secret_access_key="-",  # noqa: S106  # none
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"storage.s3: no endpoint: {error}", hint="set storage.s3.endpoint or storage.s3.region") from None
        return Site(client.meta.endpoint_url.rstrip("/"), client.meta.region_name or DEFAULT_REGION)

    def services(self) -> list[str]:
        """The URLs that AWS's own settings name for what hands out credentials, where such may be asked."""
        if self._settings.access_key_id or self._session.get_config_variable("ignore_configured_endpoint_urls"):
            return []
        files = self._session.full_config, self._session.get_scoped_config()
        named = (ConfiguredEndpointProvider(*files, name).provide() for name in ("sts", "sso", "sso-oidc"))
        return [str(url) for url in named if url]

    async def sign(self, method: str, url: str, headers: Mapping[str, str], *, region: str, body_sha256: str) -> dict[str, str]:
        """`headers` and those of the signature. `body_sha256` in hexadecimal. Raises StoreUnavailable without credentials."""
        found = await self._credentials()
        if self._identity is None or self._identity[0] is not found or self._identity[1].region != region:
            self._identity = found, Identity(found.access_key or "", found.secret_key or "", found.token, region)
        return self._signatures.sign(self._identity[1], method, url, headers, body_sha256)

    def distrust(self) -> None:
        """The server refused these credentials: look for them afresh, as others may have been put there."""
        if not self._settings.access_key_id:
            self._session = self._begin()
            self._source = self._current = None

    async def _credentials(self) -> ReadOnlyCredentials:
        if self._current is None or self._run_out():
            async with self._renewing:
                if self._current is None or self._run_out():
                    await self._renew()
        assert self._current is not None
        return self._current

    def _run_out(self) -> bool:
        if time.monotonic() - self._renewed_at < RENEW_SECONDS:
            return self._lasts_less_than(LAST_SECONDS)
        return self._lasts_less_than(None)

    def _lasts_less_than(self, seconds: int | None) -> bool:
        """None: as little as botocore renews at. Only credentials that have an end know of it."""
        return isinstance(self._source, RefreshableCredentials) and self._source.refresh_needed(seconds)

    def _find(self) -> tuple[Credentials, ReadOnlyCredentials]:
        """The credentials as they are now, renewed if need be; blocks."""
        try:
            source = self._source or self._session.get_credentials()
            found = source.get_frozen_credentials() if source is not None else None
        except Exception as error:  # noqa: BLE001  # whatever a provider raises: botocore lets those of sockets, files, JSON through
            raise StoreUnavailable(
                f"no credentials for S3: {type(error).__name__}: {error}",
                hint="check the role, the profile or the environment that they come from, or set storage.s3.access_key_id",
                error=type(error).__name__,
            ) from None
        if source is None or found is None:
            raise StoreUnavailable(
                "no credentials for S3 were found",
                hint="set storage.s3.access_key_id and its secret, or provide AWS's own: environment, profile, role",
            )
        return source, found

    async def _found(self) -> tuple[Credentials, ReadOnlyCredentials]:
        # A thread cannot be stopped, and a second one must not renew beside it: all wait for the same one, if it hangs.
        if self._finding is None:
            self._finding, self._found_by = in_thread(self._find), time.monotonic() + LOOKUP_SECONDS
        finding = self._finding
        await asyncio.wait([finding], timeout=max(self._found_by - time.monotonic(), 0))
        if not finding.done():
            raise StoreUnavailable(
                f"no credentials for S3: no answer within {LOOKUP_SECONDS:g} s",
                hint="check what they come from (the instance's metadata, STS, a command), or set storage.s3.access_key_id",
                error="TimeoutError",
            )
        self._finding = None
        return finding.result()

    async def _renew(self) -> None:
        try:
            source, found = await self._found()
        except StoreUnavailable as error:
            if self._current is None or self._lasts_less_than(LAST_SECONDS):
                raise
            log.warning("credential_renewal_failed", **error.facts)
            self._renewed_at = time.monotonic()
            return
        self._source, former, self._current = source, self._current, found
        self._renewed_at = time.monotonic()
        if former is not None and former != found:
            for secret in (former.secret_key, former.token):
                forget_secret(secret or "")
        for secret in (found.secret_key, found.token):
            remember_secret(secret or "")


class _Session(botocore.session.Session):
    """Asks for credentials by our proxy, or by none; botocore alone would look for one in the environment."""

    network = DIRECT

    def create_client(  # type: ignore[override]  # it is declared once for each service
        self, service_name: Any, region_name: str | None = None, **terms: Any
    ) -> Any:
        given = terms.pop("config", None) or Config()
        client = super().create_client(service_name, region_name, config=Config(proxies={}).merge(given), **terms)
        proxy = self.network.proxy_for(URL(client.meta.endpoint_url))
        if proxy is None:
            return client
        by_proxy = Config(proxies=dict.fromkeys(("http", "https"), proxy.whole_url))
        return super().create_client(service_name, region_name, config=by_proxy.merge(given), **terms)


def _session(settings: S3Settings, network: Network, authorities: str | None) -> botocore.session.Session:
    try:
        session = _Session(profile=settings.profile or None)
        session.network = network
        if settings.access_key_id:
            session.set_credentials(
                settings.access_key_id, settings.secret_key(), settings.session_token.get_secret_value() or None
            )
        session.get_config_variable("region")  # reads the files, and complains of a profile that is not there
        if authorities is not None:
            session.set_config_variable("ca_bundle", authorities)
        _ask_metadata_directly(session)
    except BotoCoreError as error:
        raise ConfigError(f"storage.s3: {error}", hint="check storage.s3.profile and AWS's configuration files") from None
    return session


def _ask_metadata_directly(session: botocore.session.Session) -> None:
    """The instance's metadata are asked by no proxy, whatever HTTP_PROXY says: another machine would answer with its own."""
    for provider in session.get_component("credential_provider").providers:
        if isinstance(provider, InstanceMetadataProvider):
            fetcher: Any = vars(provider)["_role_fetcher"]
            fetcher._session = URLLib3Session(timeout=fetcher._timeout, proxies={})


def _authorities(network: Network) -> IO[bytes] | None:
    """A file of those that botocore trusts, and those of `network.ca_bundle`: it takes one file only. Closed, it is gone."""
    if network.ca_bundle is None:
        return None
    both = tempfile.NamedTemporaryFile(prefix="archiver-authorities-")  # noqa: SIM115  # it lives as long as the signer
    for path in (where(), network.ca_bundle):
        both.write(Path(path).read_bytes() + b"\n")
    both.flush()
    return both
