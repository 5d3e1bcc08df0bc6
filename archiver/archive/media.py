"""Where recordings may be fetched from, and the opening of a signed URL.

A signed URL is requested byte for byte as given: neither decoded nor encoded again, in redirects too. No header of ours that
could matter goes along (this session never knew a token). Every hop is checked: scheme, host against `media_hosts`, and the
address that the name resolved to, which is the very address then connected to.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from urllib.parse import quote, urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from archiver.archive.addresses import is_of_machines, is_public
from archiver.config import BotSettings, TransferSettings, is_loopback
from archiver.errors import (
    MediaHostRefused,
    MediaNotResumable,
    MediaUnreachable,
    MediaUrlExpired,
    MediaUrlRefused,
    RecordingRejected,
)
from archiver.observe.logs import is_debugging, logger
from archiver.observe.redact import redact
from archiver.runtime.bandwidth import Bandwidth
from archiver.runtime.network import DIRECT, Network, encodings_of, hint_of, reason_of, unreadable

log = logger(__name__)

MAX_REDIRECTS = 5
MAX_URL = 8192
"""Characters; signed URLs have a tenth of it."""
MAX_HOST = 253
"""Characters that a name can have."""

READ_BUFFER = 256 * 1024
CONNECT_SECONDS = 15.0

QUEUE_SECONDS = 3600.0
"""What a request may wait for its turn, where the connections to a host are limited."""

REMEMBERED_HOSTS = 1000

OF_MACHINES = (
    "no recording lies at such an address, and what does may be this machine's own credentials: do not allow it; the platform's "
    "answer, or what the name server says, is wrong: tell the platform's support"
)
REDIRECTED = "a media host has no reason to redirect there: do not allow it; tell the platform's support, or who runs that host"

# Narrower than any parser: what this takes, every one reads alike. No user, no escape in the host, no space, ASCII only.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[._-]*[a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])"
    r"(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?(?:[/?][!-~]*)?\Z",
    re.IGNORECASE,
)

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

_NOT_OF_URLS = re.compile(r"[^\x00-\x1f!-~\x7f]+")

REFUSAL_BYTES = 8192
"""Of a refusal's body that are read."""

_CODE = re.compile(rb"<Code>\s{0,9}([A-Za-z]{1,60})\s{0,9}</Code>")
EXPIRED = frozenset({b"ExpiredToken", b"RequestExpired", b"TokenRefreshRequired", b"AuthenticationFailed"})
"""What S3 and Azure say with HTTP 400 of a URL, or of the credentials that signed it, whose time is over."""

_WHOLE = re.compile(r"bytes 0-(?P<last>[0-9]{1,15})/(?P<total>[0-9]{1,15})", re.IGNORECASE)


@dataclass(frozen=True)
class MediaHosts:
    """A bot's `media_hosts`, answering which hosts and addresses it allows."""

    bot: str
    patterns: tuple[str, ...]
    _passed: set[tuple[str, str]] = field(default_factory=set, compare=False, repr=False)
    """Schemes and hosts that have been found in order: nearly all recordings come from one host."""

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

    def check_url(self, url: str) -> None:
        """Whether a URL may be requested. Raises MediaUrlRefused or MediaHostRefused."""
        if len(url) > MAX_URL:
            raise MediaUrlRefused(f"a recording's URL of {len(url)} characters: more than {MAX_URL}", url=_shown(url))
        found = _URL.match(url)
        if found is None or len(found["host"]) > MAX_HOST:
            scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}:", url)
            if scheme and scheme[0].lower() not in ("https:", "http:"):
                raise MediaUrlRefused(f'a recording\'s URL with scheme "{scheme[0][:-1]}"', url=_shown(url))
            raise MediaUrlRefused("the recording's URL is malformed", url=_shown(url))
        host = found["host"].strip("[]").lower().rstrip(".")
        origin = (found["scheme"].lower(), host)
        if origin in self._passed:
            return
        if is_public(host) is None and _NUMBER.fullmatch(host.rpartition(".")[2]):
            # Whoever looks it up, be it a proxy, may take it for an address in a spelling of old, and so for an inner one.
            raise MediaUrlRefused("a number in place of a recording's host", url=_shown(url))
        if is_public(host) is not None or is_loopback(host):
            self.check_address(host, host)
        if not self.allows(host):
            raise MediaHostRefused(
                f"host {host} is not in media_hosts",
                host=host,
                public=True,
                hint=f"if recordings of {self.bot} come from there, add it to bots.{self.bot}.media_hosts",
            )
        if origin[0] == "http" and not is_loopback(host):
            raise MediaUrlRefused(f"plain http:// from {host}: only loopback hosts may do that", url=_shown(url))
        if len(self._passed) < REMEMBERED_HOSTS:
            self._passed.add(origin)

    def check_address(self, host: str, address: str) -> None:
        """Raises MediaHostRefused if `host` resolved to an inner address and isn't named literally."""
        host = host.lower().rstrip(".")
        if not is_public(address) and not self.names(host):
            raise MediaHostRefused(
                f"host {host} leads to {address}, which is not a public address",
                host=host,
                public=False,
                address=address,
                hint=OF_MACHINES
                if is_of_machines(address)
                else f"inner addresses are used only if bots.{self.bot}.media_hosts names the host literally",
            )


def _shown(url: str) -> str:
    """What may be shown of a URL: never its query, which is signed."""
    return redact(url.partition("?")[0])[:200]


class _CheckedResolver(AbstractResolver):
    """Resolves, and refuses what a bot's list does not allow. aiohttp connects to what this returns and to nothing else."""

    def __init__(self, hosts: MediaHosts, network: Network, inner: AbstractResolver) -> None:
        self._hosts = hosts
        self._network = network
        self._inner = inner

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        # The proxy may well be inside: no recording is asked of it by its own name.
        for result in [] if self._network.leads_to_proxy(host) else found:
            self._hosts.check_address(host, result["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True)
class Rest:
    """What is still to come of a body: from byte `start` to the end of `total`, if it is what `validator` names still."""

    start: int
    total: int
    validator: str


class MediaClient:
    """Opens signed URLs for one bot. A body that brings nothing for `terms.stall_timeout` breaks; there is no limit on the whole,
    as a long recording may take its time. `bandwidth` is shared with the other bots. `resolver` is asked for addresses in place
    of the system; what it says is checked. What goes by a proxy is resolved there, and held to the list of names alone.
    """

    def __init__(
        self,
        hosts: MediaHosts,
        terms: TransferSettings | None = None,
        *,
        bandwidth: Bandwidth | None = None,
        resolver: AbstractResolver | None = None,
        network: Network = DIRECT,
    ) -> None:
        terms = terms or TransferSettings()
        self.hosts = hosts
        self._network = network
        self.bandwidth = bandwidth
        self.stall = terms.stall_timeout.total_seconds()
        self.min_rate = terms.min_rate or 0
        self.at_once = not terms.connections_per_host
        """No request waits for its turn."""
        # From the request's beginning; where it may wait for its turn, from when it goes out. A head that never ends would renew
        # the other timeouts with every byte.
        self._head_seconds = CONNECT_SECONDS + self.stall
        checked = _CheckedResolver(hosts, network, resolver or ThreadedResolver())
        self._http = network.session(
            {"limit": 0, "limit_per_host": terms.connections_per_host, "resolver": checked, "ttl_dns_cache": 60},
            requote_redirect_url=False,
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self.stall),
            headers={"Accept-Encoding": "identity", "User-Agent": "kore-archiver"},
            trace_configs=None if self.at_once else [self._trace()],
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def open(self, url: str, rest: Rest | None = None) -> aiohttp.ClientResponse:
        """The answer to a signed URL, its body still to be read and the answer to be closed by the caller: status 2xx, redirects
        followed and checked. With `rest` its body is just that.

        Raises MediaUrlRefused, MediaHostRefused, MediaUrlExpired (401, 403, 404, 410, 400 with S3's or Azure's word for it),
        MediaUnreachable (everything that may pass by itself), MediaNotResumable, RecordingRejected.
        """
        response = await self._follow(url, _range(rest))
        try:
            if response.status == 400:
                await self._check_expired(response)
            if rest is None:
                _check_status(response)
            else:
                _check_rest(response, rest)
        except BaseException:
            response.close()
            raise
        return response

    def _trace(self) -> aiohttp.TraceConfig:
        """Puts a bound on a request's answer from when the request went out: its turn may have been long in coming."""

        async def sent(_http: object, context: SimpleNamespace, _params: object) -> None:
            context.trace_request_ctx.reschedule(asyncio.get_running_loop().time() + self._head_seconds)

        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(sent)
        return trace

    async def _check_expired(self, response: aiohttp.ClientResponse) -> None:
        """Raises MediaUrlExpired if a 400 says that the URL's time is over."""
        body = b""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while len(body) < REFUSAL_BYTES and (piece := await response.content.read(REFUSAL_BYTES - len(body))):
                    body += piece
        except (aiohttp.ClientError, OSError):
            pass  # what came of it has to do
        found = _CODE.search(body)
        if found is not None and found[1] in EXPIRED:
            code = found[1].decode()
            raise MediaUrlExpired(f"the media host does not accept the URL (HTTP 400, {code})", http_status=400, code=code)

    def _check_proxy(self, url: URL) -> None:
        """Where the proxy's own name leads to is not checked: no recording is fetched from there. Raises MediaHostRefused."""
        host = (url.host or "").lower().rstrip(".")
        if self._network.leads_to_proxy(host) and not self.hosts.names(host):
            raise MediaHostRefused(
                f"host {host} is the proxy itself",
                host=host,
                public=False,
                hint=f"recordings are fetched from it only if bots.{self.hosts.bot}.media_hosts names it literally",
            )

    async def _follow(self, url: str, headers: Mapping[str, str] | None) -> aiohttp.ClientResponse:
        for hop in range(MAX_REDIRECTS + 1):
            try:
                self.hosts.check_url(url)
                self._check_proxy(at := URL(url, encoded=True))
                async with asyncio.timeout(self._head_seconds if self.at_once else QUEUE_SECONDS) as patience:
                    response = await self._http.get(at, headers=headers, allow_redirects=False, trace_request_ctx=patience)
            except MediaHostRefused as error:
                if hop and error.public is False:
                    error.hint, error.facts["redirected"] = REDIRECTED, True
                raise
            except (aiohttp.InvalidURL, UnicodeError) as error:
                # Among them a number that passes for a host, which a resolver might take for an inner address.
                raise MediaUrlRefused(
                    f"the recording's URL cannot be requested ({type(error).__name__})", url=_shown(url)
                ) from None
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(error, URL(url, encoded=True)) from None
            if is_debugging():
                log.debug("media_answered", url=url, http_status=response.status, promised=response.content_length)
            location = response.headers.get("Location")
            if response.status not in (301, 302, 303, 307, 308) or not location:
                return response
            response.close()
            # As browsers do, with just what no URL has; quote knows the bytes that were no UTF-8, too.
            location = _NOT_OF_URLS.sub(lambda found: quote(found[0], errors="surrogateescape"), location)
            # urljoin puts a URL together again, which may change it: what is whole already is taken as it is.
            url = location if _URL.match(location) else _joined(url, location)
        raise MediaUnreachable(f"more than {MAX_REDIRECTS} redirects", reason="media_redirects")


def _joined(url: str, location: str) -> str:
    """Where a redirect that is no whole URL leads to. Raises MediaUrlRefused."""
    try:
        return urljoin(url, location)
    except ValueError:  # half an address, or letters that others take for the marks of a URL
        raise MediaUrlRefused("a redirect to a malformed URL", url=_shown(location)) from None


def _range(rest: Rest | None) -> Mapping[str, str] | None:
    return None if rest is None else {"Range": f"bytes={rest.start}-", "If-Range": rest.validator}


def _check_rest(response: aiohttp.ClientResponse, rest: Rest) -> None:
    status, headers = response.status, response.headers
    if status in (200, 412, 416):
        raise MediaNotResumable(f"the media host answered HTTP {status} to a request for the rest", http_status=status)
    if status != 206:
        _check_status(response)
    given, expected = headers.get("Content-Range", ""), f"bytes {rest.start}-{rest.total - 1}/{rest.total}"
    # A host that knows no If-Range says by its ETag or date that the file is another one; one that says nothing is not believed.
    repeated = headers.get("ETag" if rest.validator.startswith('"') else "Last-Modified")
    if given != expected or repeated != rest.validator:
        raise MediaNotResumable("the media host sent another part than was asked for", content_range=redact(given)[:100])
    _check_encoding(response)


def _check_status(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status in (401, 403, 404, 410):
        raise MediaUrlExpired(f"the media host does not accept the URL (HTTP {status})", http_status=status)
    if status == 429 or status >= 500:
        raise MediaUnreachable(f"the media host answered HTTP {status}", reason=f"media_http_{status}", http_status=status)
    if not 200 <= status < 300 or status in (204, 205) or (status == 206 and _whole_range(response) is None):
        raise RecordingRejected(f"the media host answered HTTP {status}", reason=f"media_http_{status}", http_status=status)
    _check_encoding(response)


def _check_encoding(response: aiohttp.ClientResponse) -> None:
    if encodings := encodings_of(response.headers):
        raise RecordingRejected("the media host encoded the body, unasked", reason="media_encoded", encodings=encodings)


def promised_by(response: aiohttp.ClientResponse) -> int | None:
    """How many bytes a recording's body is to have, by its answer's head; None where that says nothing that counts."""
    if "Transfer-Encoding" in response.headers:  # whatever length stands beside it (RFC 9112, 6.3)
        return _whole_range(response)
    return response.content_length if response.status != 206 else _whole_range(response)


def _whole_range(response: aiohttp.ClientResponse) -> int | None:
    """The length of what a 206 brings, if that is all there is; some gateways answer so, unasked."""
    found = _WHOLE.fullmatch(response.headers.get("Content-Range", "").strip()) if response.status == 206 else None
    if found is None or int(found["last"]) + 1 != int(found["total"]):
        return None
    total = int(found["total"])
    return total if "Transfer-Encoding" in response.headers or response.content_length in (None, total) else None


def _unreachable(error: BaseException, at: URL) -> MediaUnreachable:
    host = f"{at.host}:{at.port}"
    text, kind = redact(str(error)) or type(error).__name__, type(error).__name__
    if unreadable(error):
        message = f"what the media host answered cannot be read as HTTP: {text}"
        return MediaUnreachable(message, reason="media_answer_unreadable", error=kind, host=host)
    reason = "recording_truncated" if isinstance(error, aiohttp.ClientPayloadError) else "media_unreachable"
    return MediaUnreachable(
        f"the connection to the media host broke: {text}",
        reason=reason_of(error) or reason,
        hint=hint_of(error),
        error=kind,
        host=host,
    )
