"""The way out: what goes by a proxy, which authorities are trusted, and the sessions that everything is asked by.

Guarantees: the environment's proxy is read once, by us, and aiohttp looks at nothing there; loopback and link-local addresses,
where clouds keep their metadata, are never asked through a proxy; what a proxy refuses is never taken for the answer of whoever
lies behind it; its password is in no error.
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
"""What a proxy may take until the way to a host is open: it may itself be waiting for that host."""

MAX_HEADER = 64 * 1024
"""Bytes of an answer's first line, and of each of its headers: some gateways send tens of thousands."""

UNCHECKED = "the proxy looks up names, so that the addresses of media hosts cannot be checked: media_hosts decides by names alone"
"""To be told of a proxy wherever it is told of one."""

UNREACHABLE, UNACCEPTED, REFUSED = "proxy_unreachable", "proxy_credentials_rejected", "proxy_refused"
"""What a proxy alone is to blame for: no connection to it, a 407, a host that it lets nobody reach."""

_TOLD = 200
"""Characters of a proxy's own words that are kept."""

_LINK_LOCAL = tuple(ipaddress.ip_network(text) for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32"))
"""Where clouds serve their metadata, and credentials with them."""

_NO_ENCODING = frozenset({"", "identity", "none", "binary", "aws-chunked", "utf-8", "utf8"})
"""What objects have as `Content-Encoding` by mistake, or from how they were once sent to S3: nothing is packed by it."""

_AUTHORIZATION = "Proxy-Authorization"


class ProxyFault(aiohttp.ClientConnectionError):
    """No way out by the proxy. `reason` says what the proxy alone is to blame for; empty where the host behind it may be."""

    def __init__(self, message: str, *, reason: str = "", hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.hint = hint


@dataclass(frozen=True)
class Network:
    """How everything is reached. `exempt`: what the environment has reached without its proxy."""

    proxy: Proxy | None = None
    exempt: tuple[str, ...] = ()
    tls: ssl.SSLContext | Literal[True] = True
    """Whose certificates are trusted; True: the system's."""
    ca_bundle: Path | None = None
    """The authorities in `tls` beside the system's, for libraries that want a file."""

    @classmethod
    def of(cls, settings: NetworkSettings, environment: Mapping[str, str] | None = None) -> Network:
        """As the settings say, else the environment. Raises ConfigError."""
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
        """The proxy by which a URL is to be requested; None: none."""
        host = (url.host or "").rstrip(".").lower()
        if self.proxy is None or is_loopback(host) or _lies_in(host, _LINK_LOCAL):
            return None
        # By the variable's name, and by what all others make of it, it is for https:// only.
        if self.proxy.from_environment and (url.scheme != "https" or self._exempts(host, url.port)):
            return None
        return self.proxy

    def leads_to_proxy(self, host: str) -> bool:
        """Whether that is the proxy's own name."""
        return self.proxy is not None and URL(self.proxy.url).host == host.rstrip(".").lower()

    def session(self, connections: Mapping[str, Any] | None = None, **terms: Any) -> aiohttp.ClientSession:
        """Sends requests the right way: TLS verified, no cookies, nothing from the environment, nothing unpacked. `connections`
        are the terms of a TCPConnector, `terms` those of a ClientSession. Besides aiohttp's errors it raises ProxyFault.
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
            if network is not None and _lies_in(host, (network,)):
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
"""By no proxy, whatever the environment says."""


class _Connector(BoundedConnector):
    """Says of each fault on the way whether it is the proxy's."""

    def __init__(self, proxy: Proxy | None, **terms: Any) -> None:
        super().__init__(**terms)
        self._proxy = proxy

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
            raise  # of the host behind it, or of who stands in for it: the hint for that is another
        except aiohttp.ClientConnectorError as error:
            told = redact(str(error.os_error))[:_TOLD] or type(error.os_error).__name__
            message = f"no TLS with {_target(req.url)} behind the proxy {proxy.url}: {told}"
            raise ProxyFault(message, hint=f"{_look_at(proxy)}: something else than that host may have answered") from None
        except (aiohttp.ClientOSError, aiohttp.ServerConnectionError, aiohttp.ClientResponseError, TimeoutError) as error:
            told = redact(str(error))[:_TOLD] or type(error).__name__
            raise ProxyFault(f"the proxy {proxy.url} opened no way to {_target(req.url)}: {told}", hint=_look_at(proxy)) from None

    async def _create_direct_connection(
        self, req: ClientRequest, *args: Any, client_error: type[Exception] = aiohttp.ClientConnectorError, **more: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            return await super()._create_direct_connection(req, *args, client_error=client_error, **more)
        except (aiohttp.ClientError, OSError) as error:
            if client_error is not ClientProxyConnectionError or self._proxy is None:
                raise
            told = redact(str(error))[:_TOLD] or type(error).__name__
            hint = hint_of(error) or f"{_look_at(self._proxy)}; is it running, and may this machine reach it?"
            raise ProxyFault(f"no connection to the proxy {self._proxy.url}: {told}", reason=UNREACHABLE, hint=hint) from None


def hint_of(error: BaseException) -> str:
    """What to do about a fault of a connection, where that is not plain; else empty."""
    if isinstance(error, ProxyFault):
        return error.hint
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return "if something on the way opens TLS, such as a proxy that inspects it, name its authority in network.ca_bundle"
    return ""


def reason_of(error: BaseException) -> str:
    """UNREACHABLE, UNACCEPTED or REFUSED where the proxy alone is to blame for a fault; else empty."""
    return error.reason if isinstance(error, ProxyFault) else ""


def unreadable(error: BaseException) -> bool:
    """Whether something was answered, and that is no HTTP, or more of it than anybody needs."""
    return isinstance(error, aiohttp.ClientResponseError)


def encodings_of(headers: CIMultiDictProxy[str]) -> list[str]:
    """How a body is packed, as its headers have it; nothing where they name only what stands for no packing."""
    named = list(headers.getall("Content-Encoding", []))
    return [] if {one.strip().lower() for one in ",".join(named).split(",")} <= _NO_ENCODING else named


def _refused(proxy: Proxy, url: URL, status: int, words: str) -> ProxyFault:
    what = f"HTTP {status} {redact(words)[:_TOLD]}".rstrip()
    if status == 407:
        hint = f"check the user and the password in {proxy.named_by}"
        return ProxyFault(f"the proxy {proxy.url} does not accept who we are ({what})", reason=UNACCEPTED, hint=hint)
    message = f"the proxy {proxy.url} refuses the way to {_target(url)} ({what})"
    if status >= 500:
        return ProxyFault(message, hint=f"{_look_at(proxy)}, and whether it can reach {url.host}")
    return ProxyFault(message, reason=REFUSED, hint=f"have it let {_target(url)} through, or {_look_at(proxy)}")


def _look_at(proxy: Proxy) -> str:
    return f"look at {proxy.named_by}"


def _target(url: URL) -> str:
    return f"{url.host}:{url.port}"


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def _lies_in(host: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return any(address in network for network in networks)
