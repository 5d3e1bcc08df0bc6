"""Where recordings may be fetched from, and the opening of a signed URL.

A signed URL is requested byte for byte as given: neither decoded nor encoded again, in redirects too. No header of ours that
could matter goes along (this session never knew a token). Every hop is checked: scheme, host against `media_hosts`, and the
address that the name resolved to, which is the very address then connected to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from archiver.config import BotSettings, is_loopback
from archiver.errors import MediaHostRefused, MediaUnreachable, MediaUrlExpired, MediaUrlRefused, RecordingRejected
from archiver.redact import redact

MAX_REDIRECTS = 5
READ_BUFFER = 256 * 1024
STALL_SECONDS = 60.0
"""A body that brings nothing for so long is given up. There is no total timeout: a long recording may take its time."""

CONNECT_SECONDS = 15.0


@dataclass(frozen=True)
class MediaHosts:
    """A bot's `media_hosts`, answering which hosts and addresses it allows."""

    bot: str
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, bot: BotSettings) -> MediaHosts:
        """The list of one bot."""
        return cls(bot.name, bot.media_hosts)

    def names(self, host: str) -> bool:
        """Whether the list names this host literally; only then may its address be an inner one."""
        return host in self.patterns

    def allows(self, host: str) -> bool:
        """Whether the list covers this host name."""
        return any(
            pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1)
            for pattern in self.patterns
        )

    def check_url(self, url: str) -> str:
        """The host of a URL that may be requested. Raises MediaUrlRefused or MediaHostRefused."""
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower().rstrip(".")
            port_known = parts.port is None or 0 < parts.port < 65536
        except ValueError:
            raise MediaUrlRefused("the recording's URL cannot be read", url=redact(url[:200])) from None
        if any(ord(c) <= 32 or ord(c) >= 127 for c in url) or parts.username is not None or not host or not port_known:
            raise MediaUrlRefused("the recording's URL is malformed", url=redact(url[:200]))
        if parts.scheme.lower() not in ("https", "http"):
            raise MediaUrlRefused(f"a recording's URL with scheme {parts.scheme[:20]!r}", url=redact(url[:200]))
        address = _address(host)
        if address is not None and not address.is_global and not self.names(host):
            raise self._inner(host, host)
        if not self.allows(host):
            raise MediaHostRefused(
                f"host {host} is not in media_hosts",
                host=host,
                public=address is None or address.is_global,
                hint=f"if recordings of {self.bot} come from there, add it to bots.{self.bot}.media_hosts",
            )
        if parts.scheme.lower() == "http" and not is_loopback(host):
            raise MediaUrlRefused(f"plain http:// from {host}: only loopback hosts may do that", url=redact(url[:200]))
        return host

    def check_address(self, host: str, address: str) -> None:
        """Raises MediaHostRefused if `host` resolved to an inner address and isn't named literally."""
        found = _address(address)
        if (found is None or not found.is_global) and not self.names(host.lower().rstrip(".")):
            raise self._inner(host, address)

    def _inner(self, host: str, address: str) -> MediaHostRefused:
        return MediaHostRefused(
            f"host {host} leads to {address}, which is not a public address",
            host=host,
            public=False,
            address=address,
            hint=f"inner addresses are used only if bots.{self.bot}.media_hosts names the host literally",
        )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that traffic would really reach: what an IPv6 form wraps, if it wraps one."""
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if wrapped is None and address in ipaddress.ip_network("64:ff9b::/96"):
            wrapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return wrapped or address
    return address


class _CheckedResolver(AbstractResolver):
    """Resolves, and refuses what a bot's list does not allow. aiohttp connects to what this returns and to nothing else."""

    def __init__(self, hosts: MediaHosts) -> None:
        self._hosts = hosts
        self._inner = ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for result in found:
            self._hosts.check_address(host, result["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


class MediaClient:
    """Opens signed URLs for one bot."""

    def __init__(self, hosts: MediaHosts) -> None:
        self.hosts = hosts
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=_CheckedResolver(hosts), ttl_dns_cache=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            requote_redirect_url=False,
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
            headers={"Accept-Encoding": "identity", "User-Agent": "kore-archiver"},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a signed URL, its body still to be read, status 2xx, redirects followed and checked.

        Raises MediaUrlRefused, MediaHostRefused, MediaUrlExpired (401, 403, 404, 410), MediaUnreachable (everything that may
        pass by itself), RecordingRejected. What goes wrong while the caller reads the body is translated too.
        """
        response = await self._follow(url)
        try:
            _check_status(response)
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(error) from None
        finally:
            response.close()

    async def _follow(self, url: str) -> aiohttp.ClientResponse:
        for _ in range(MAX_REDIRECTS + 1):
            self.hosts.check_url(url)
            try:
                response = await self._http.get(URL(url, encoded=True), allow_redirects=False)
            except (aiohttp.ClientError, OSError) as error:
                raise _refusal_behind(error) or _unreachable(error) from None
            except ValueError as error:
                raise MediaUrlRefused(f"the recording's URL cannot be requested: {redact(str(error))[:200]}") from None
            if response.status not in (301, 302, 303, 307, 308):
                return response
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        raise MediaUnreachable(f"more than {MAX_REDIRECTS} redirects", reason="media_redirects")


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in (401, 403, 404, 410):
        raise MediaUrlExpired(f"the media host does not accept the URL (HTTP {status})", http_status=status)
    if status == 429 or status >= 500:
        raise MediaUnreachable(f"the media host answered HTTP {status}", reason=f"media_http_{status}", http_status=status)
    if not 200 <= status < 300 or status in (204, 205, 206):
        raise RecordingRejected(f"the media host answered HTTP {status}", reason=f"media_http_{status}", http_status=status)
    encodings: Iterable[str] = response.headers.getall("Content-Encoding", [])
    if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
        raise RecordingRejected("the media host encoded the body, unasked", reason="media_encoded", encodings=list(encodings))


def _refusal_behind(error: BaseException | None) -> MediaHostRefused | None:
    """aiohttp wraps what a resolver raises."""
    while error is not None:
        if isinstance(error, MediaHostRefused):
            return error
        error = error.__cause__ or error.__context__
    return None


def _unreachable(error: BaseException) -> MediaUnreachable:
    truncated = isinstance(error, aiohttp.ClientPayloadError)
    text = redact(str(error)) or type(error).__name__
    return MediaUnreachable(
        f"the connection to the media host broke: {text}",
        reason="recording_truncated" if truncated else "media_unreachable",
        error=type(error).__name__,
    )
