"""The receiver of messages, by HTTP.

Guarantees: a message is posted to the configured URL alone, no redirect is followed; of the answer nothing but its first line and
headers is read; the whole has a deadline; no error names more of the URL than its host.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from archiver.config import NotifySettings
from archiver.errors import ArchiverError
from archiver.runtime.network import Network, hint_of

SECONDS = 10.0
"""For one message: to connect, to send it, and for the answer to begin."""

NEXT = "see that it is there and answers 2xx; `archiver doctor --notify` tries it"


class NotDelivered(ArchiverError):
    """The receiver did not accept a message."""


class Receiver:
    """Made by `opened_receiver`."""

    def __init__(self, settings: NotifySettings, http: aiohttp.ClientSession) -> None:
        self._url = URL(settings.url.get_secret_value(), encoded=True)
        self._name = settings.receiver
        self._http = http

    async def post(self, body: bytes, headers: dict[str, str]) -> None:
        """Return once the receiver has accepted it. Raises NotDelivered."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS):
                response = await self._http.post(self._url, data=body, headers=headers, allow_redirects=False)
        except TimeoutError:
            raise NotDelivered(
                f"{self._name} did not answer within {SECONDS:g} s", hint=NEXT, seconds=round(time.monotonic() - began, 1)
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its own words may quote the URL, or what a stranger answered.
            certificate = getattr(getattr(error, "certificate_error", None), "verify_message", None)
            told = certificate or getattr(error, "strerror", None) or type(error).__name__
            raise NotDelivered(f"{self._name} cannot be reached: {told}", hint=hint_of(error) or NEXT) from None
        status = response.status
        response.close()  # whatever body it has, and however long
        if 300 <= status < 400:
            raise NotDelivered(f"{self._name} answered HTTP {status}: redirects are not followed", hint="correct notify.url")
        if not 200 <= status < 300:
            raise NotDelivered(f"{self._name} answered HTTP {status}", hint=NEXT, http_status=status)


@asynccontextmanager
async def opened_receiver(settings: NotifySettings, network: Network) -> AsyncIterator[Receiver]:
    """For a few messages. It has no connection, nor a cookie, that anything else has."""
    async with network.session(headers={"user-agent": "archiver"}, timeout=aiohttp.ClientTimeout(total=None)) as http:
        yield Receiver(settings, http)
