"""The bots that a worker serves. They may change while it works: what is in hand goes on with what it began with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from archiver.archive.context import BotAccess
from archiver.observe.logs import logger

log = logger(__name__)

Close = Callable[[], Awaitable[None]]


class Bots(Mapping[str, BotAccess]):
    """By name, what serves each bot now. A bot that was removed is none of them any more; asked for by its name, there is what
    served it, until the last who uses that is done with it. Then it is closed, and so is what was replaced.
    """

    def __init__(self, served: Mapping[str, BotAccess] | None = None) -> None:
        self._served = dict(served or {})
        self._former: list[BotAccess] = []
        """Removed or replaced, and still in use; the newest last."""
        self._users: Counter[int] = Counter()
        self._closers: dict[int, Close] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> BotAccess:
        if name in self._served:
            return self._served[name]
        for access in reversed(self._former):
            if access.settings.name == name:
                return access
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return name in self._served

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._served))

    def __len__(self) -> int:
        return len(self._served)

    def serves(self, access: BotAccess) -> bool:
        """Whether this is what serves its bot now."""
        return self._served.get(access.settings.name) is access

    @contextmanager
    def using(self, name: str) -> Iterator[BotAccess]:
        """What serves the bot, open for as long as the context lasts. Raises KeyError."""
        access = self[name]
        self._users[id(access)] += 1
        try:
            yield access
        finally:
            self._users[id(access)] -= 1
            self._close_unused(access)

    def serve(self, access: BotAccess, close: Close) -> None:
        """Serve the bot by this from now on; `close` is awaited once nobody uses it any more."""
        former = self._served.get(access.settings.name)
        self._served[access.settings.name] = access
        self._closers[id(access)] = close
        if former is not None:
            self._retire(former)

    def remove(self, name: str) -> None:
        """Serve this bot no longer."""
        self._retire(self._served.pop(name))

    async def close(self) -> None:
        """Close all there is, whoever uses it."""
        for access in (*self._served.values(), *self._former):
            self._close(access)
        self._served.clear()
        self._former.clear()
        if self._closing:
            await asyncio.wait(list(self._closing))

    def _retire(self, access: BotAccess) -> None:
        self._former.append(access)
        self._close_unused(access)

    def _close_unused(self, access: BotAccess) -> None:
        if self._users[id(access)]:
            return
        del self._users[id(access)]
        if any(each is access for each in self._former):
            self._former = [each for each in self._former if each is not access]
            self._close(access)

    def _close(self, access: BotAccess) -> None:
        close = self._closers.pop(id(access), None)
        if close is not None:
            task = asyncio.ensure_future(_awaited(close))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _awaited(close: Close) -> None:
    try:
        await close()
    except Exception as error:  # noqa: BLE001  # nobody uses it any more
        log.debug("bot_closing_failed", error=f"{type(error).__name__}: {error}")
