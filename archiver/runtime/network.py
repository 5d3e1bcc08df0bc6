"""Outgoing HTTP: which proxy a request takes, which authorities are trusted, and the sessions that all requests use.

Guarantees: the environment's proxy is read once, here, and aiohttp reads nothing from the environment; loopback and link-local
addresses, where clouds keep their metadata, are never requested through a proxy; a refusal by the proxy is never taken for an
answer of the host behind it; the proxy's password is in no error.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.client_exceptions import ClientHttpProxyError, ClientProxyConnectionError
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from archiver.config import NetworkSettings, Proxy, environment_names, is_loopback
from archiver.observe.redact import redact
from archiver.runtime.bounded_connector import BoundedConnector

CONNECT_SECONDS = 60.0
"""Seconds that a proxy may take to open a tunnel: it may itself be waiting for the host."""

MAX_HEADER = 64 * 1024
"""Bytes of an answer's first line, and of each of its headers: some gateways send tens of kilobytes."""

UNCHECKED = "the proxy looks up names, so the addresses of media hosts cannot be checked: media_hosts decides by name alone"
"""Belongs into every message that names the proxy in use."""

UNREACHABLE, UNACCEPTED, REFUSED = "proxy_unreachable", "proxy_credentials_rejected", "proxy_refused"
"""Reasons of faults that are the proxy's alone: no connection to it, a 407, a host that it refuses to connect to."""

_MAX_QUOTED = 200
"""Characters of a proxy's own message that are quoted."""

_LINK_LOCAL = tuple(ipaddress.ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32"))
"""Where clouds serve their metadata, and credentials with them."""

_NO_ENCODING = frozenset({"", "identity", "none", "binary", "aws-chunked", "utf-8", "utf8"})
"""Values of `Content-Encoding` that objects have by mistake, or from how they were uploaded to S3: the body is not encoded."""

_AUTHORIZATION = "Proxy-Authorization"


class ProxyFault(aiohttp.ClientConnectionError):
    """A request failed at the proxy. `reason` names a fault of the proxy's own; empty where the host may be at fault."""

    def __init__(self, message: str, *, reason: str = "", hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Network:
    """How hosts are reached. `exempt`: the entries of `NO_PROXY`, which apply to a proxy of the environment only."""

    proxy: Proxy | None = None
    exempt: tuple[str, ...] = ()
    tls: ssl.SSLContext | Literal[True] = True
    """Trusted authorities; True: the system's."""
    ca_bundle: Path | None = None
    """The file of the authorities in `tls` beside the system's, for libraries that want a path."""

    @classmethod
    def of(cls, settings: NetworkSettings, environment: Mapping[str, str] | None = None) -> Network:
        """From the settings, else from the environment. Raises ConfigError."""
        environment = os.environ if environment is None else environment
        proxy = settings.find_proxy(environment)
        named = next((text for name in environment_names("NO_PROXY") if (text := environment.get(name, ""))), "")
        exempt = tuple(named.lower().replace(",", " ").split()) if proxy is not None and proxy.from_environment else ()
        if settings.ca_bundle is None:
            return cls(proxy, exempt)
        tls = ssl.create_default_context()
        settings.add_authorities(tls)
        return cls(proxy, exempt, tls, settings.ca_bundle)

    def proxy_for(self, url: URL) -> Proxy | None:
        """The proxy to request a URL through; None: directly."""
        host = (url.host or "").rstrip(".").lower()
        if self.proxy is None or is_loopback(host) or _is_in(host, _LINK_LOCAL):
            return None
        # HTTPS_PROXY is for https:// only, by its name and in every other program.
        if self.proxy.from_environment and (url.scheme != "https" or self._exempts(host, url.port)):
            return None
        return self.proxy

    def leads_to_proxy(self, host: str) -> bool:
        """Whether `host` is the proxy itself."""
        return self.proxy is not None and URL(self.proxy.url).host == host.rstrip(".").lower()

    def session(self, connections: Mapping[str, Any] | None = None, **terms: Any) -> aiohttp.ClientSession:
        """A session that verifies TLS, takes the proxy, keeps no cookies, reads no environment and decodes no body. `connections`
        are arguments for the TCPConnector, `terms` for the ClientSession. Its requests raise ProxyFault beside aiohttp's errors.
        """
        return aiohttp.ClientSession(
            connector=_Connector(self.proxy, ssl=self.tls, **(connections or {})),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
            middlewares=() if self.proxy is None else (self._send,),
            **terms,
        )

    def _exempts(self, host: str, port: int | None) -> bool:
        for entry in self.exempt:
            network = _network(entry)
            if network is not None and _is_in(host, (network,)):
                return True
            name, _, at = entry.partition(":")
            name = name.removeprefix("*").removeprefix(".")
            if entry == "*" or (name and at in ("", str(port)) and (host == name or host.endswith(f".{name}"))):
                return True
        return False

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        proxy = self.proxy_for(request.url)
        if proxy is None:
            return await handler(request)
        login = {_AUTHORIZATION: proxy.authorization} if proxy.authorization else {}
        request.update_proxy(URL(proxy.url), None, CIMultiDict(login))
        if request.is_ssl():
            return await handler(request)
        request.headers.update(login)  # nothing is tunnelled: the request itself goes to the proxy
        response = await handler(request)
        if response.status != 407:
            return response
        response.close()
        raise _refused(proxy, request.url, 407, response.reason or "")


DIRECT = Network()
"""No proxy, whatever the environment says."""


class _Connector(BoundedConnector):
    """Raises ProxyFault for failures at the proxy."""

    def __init__(self, proxy: Proxy | None, **terms: Any) -> None:
        super().__init__(**terms)
        self._proxy = proxy

    @property
    def has_proxy(self) -> bool:
        """Whether there is one, for some hosts at least."""
        return self._proxy is not None

    async def _create_connection(self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> ResponseHandler:
        proxy = self._proxy
        if req.proxy is None or proxy is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            # aiohttp would wait for the answer to CONNECT for ever.
            async with asyncio.timeout(CONNECT_SECONDS):
                return await super()._create_connection(req, traces, timeout)
        except ClientHttpProxyError as error:
            raise _refused(proxy, req.url, error.status, error.message) from None
        except aiohttp.ClientConnectorCertificateError:
            raise  # of the host behind it, or of whoever inspects TLS: that has a hint of its own
        except aiohttp.ClientConnectorError as error:
            reported = redact(str(error.os_error))[:_MAX_QUOTED] or type(error.os_error).__name__
            message = f"no TLS with {_target(req.url)} behind the proxy {proxy.url}: {reported}"
            raise ProxyFault(message, hint=f"{_check(proxy)}: something other than that host may have answered") from None
        except (aiohttp.ClientOSError, aiohttp.ServerConnectionError, aiohttp.ClientResponseError, TimeoutError) as error:
            reported = redact(str(error))[:_MAX_QUOTED] or type(error).__name__
            raise ProxyFault(
                f"the proxy {proxy.url} opened no connection to {_target(req.url)}: {reported}", hint=_check(proxy)
            ) from None

    async def _create_direct_connection(
        self, req: ClientRequest, *args: Any, client_error: type[Exception] = aiohttp.ClientConnectorError, **more: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            return await super()._create_direct_connection(req, *args, client_error=client_error, **more)
        except (aiohttp.ClientError, OSError) as error:
            if client_error is not ClientProxyConnectionError or self._proxy is None:
                raise
            reported = redact(str(error))[:_MAX_QUOTED] or type(error).__name__
            hint = hint_of(error) or f"{_check(self._proxy)}, and that the proxy runs and accepts connections from this machine"
            raise ProxyFault(f"no connection to the proxy {self._proxy.url}: {reported}", reason=UNREACHABLE, hint=hint) from None


def takes_proxy(http: aiohttp.ClientSession) -> bool:
    """Whether a proxy may be in between what such a session sends and those whom it is for."""
    return not isinstance(http.connector, _Connector) or http.connector.has_proxy


def hint_of(error: BaseException) -> str:
    """The next step after a failed connection, where the error itself does not say it; else empty."""
    if isinstance(error, ProxyFault):
        return error.hint
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return (
            "if its certificate is of an authority of your own, or of a proxy or firewall that inspects TLS, name that "
            "authority's file in network.ca_bundle"
        )
    return ""


def reason_of(error: BaseException) -> str:
    """UNREACHABLE, UNACCEPTED or REFUSED where the fault is the proxy's alone; else empty."""
    return error.reason if isinstance(error, ProxyFault) else ""


def unreadable(error: BaseException) -> bool:
    """Whether the answer is not valid HTTP, or its headers are too long."""
    return isinstance(error, aiohttp.ClientResponseError)


def encodings_of(headers: CIMultiDictProxy[str]) -> list[str]:
    """The content encodings of a body, as its headers name them; none where all of them mean that it is not encoded."""
    named = list(headers.getall("Content-Encoding", []))
    return [] if {one.strip().lower() for one in ",".join(named).split(",")} <= _NO_ENCODING else named


def _refused(proxy: Proxy, url: URL, status: int, words: str) -> ProxyFault:
    what = f"HTTP {status} {redact(words)[:_MAX_QUOTED]}".rstrip()
    if status == 407:
        hint = f"check the user and the password in {proxy.named_by}"
        return ProxyFault(f"the proxy {proxy.url} rejects our credentials ({what})", reason=UNACCEPTED, hint=hint)
    message = f"the proxy {proxy.url} refuses to connect to {_target(url)} ({what})"
    if status >= 500:
        return ProxyFault(message, hint=f"{_check(proxy)}, and that the proxy can reach {url.host}")
    return ProxyFault(message, reason=REFUSED, hint=f"allow {_target(url)} in the proxy, or {_check(proxy)}")


def _check(proxy: Proxy) -> str:
    return f"check {proxy.named_by}"


def _target(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _is_in(host: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)
