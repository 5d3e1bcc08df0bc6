"""Holds: a kind of a bot that the platform refuses is held for the whole fleet, tried again, and released.

Credentials that are refused hold a bot at once, after a harmless call was refused as well. Media hosts that are refused hold it
when ten sessions in a row were refused for one of them: its list is short.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from archiver.archive.context import BotAccess
from archiver.errors import BudgetSpent, CredentialsRejected, DatabaseError, MediaHostRefused, RateLimited
from archiver.observe.logs import logger
from archiver.outcome import Archived, Outcome, facts_of
from archiver.queue.sessions import Queue
from archiver.session import Attempt, Session
from archiver.worker.probes import Probes

log = logger(__name__)

MAX_REFUSALS = 10
"""So many sessions refused for one public media host, and nothing stored between, hold their bot."""

MAX_REFUSED_HOSTS = 100
"""Of so many hosts of a bot the refusals are counted; of more, the oldest is forgotten."""

BUDGET_LOOK_SECONDS = 5.0
"""How often budgets are looked at that the platform may have blocked for long."""


class Holds:
    """Holds and releases the bots that this worker serves. `wake` is called when there may be something to claim again."""

    def __init__(self, queue: Queue, bots: Mapping[str, BotAccess], probes: Probes, wake: Callable[[], None]) -> None:
        self._queue = queue
        self._bots = bots
        self._probes = probes
        self._wake = wake
        self._refusals: dict[str, dict[str, set[str]]] = {}  # by bot and media host: the IDs of sessions

    async def hold_for_credentials(self, bot: str, kind: str, error: CredentialsRejected) -> None:
        """Hold a kind of a bot, and remember by whose credentials, for a worker that has others. Raises DatabaseError."""
        facts = facts_of(error)
        access = self._bots[bot]
        fingerprint = await asyncio.to_thread(access.client.signer.fingerprint)
        if await self._queue.hold(bot, kind, error.reason, facts | {"credentials": fingerprint}):
            log.error("bot_held", **{"bot": bot, "kind": kind, "reason": error.reason, **facts})
        if bot in self._bots and self._bots[bot] is not access:
            await self.try_credentials()  # there are others by now, which did not see this hold yet

    async def count_host_refusal(self, session: Session, error: MediaHostRefused) -> bool:
        """Whether the bot is held now for this media host. Raises DatabaseError."""
        hosts = self._refusals.setdefault(session.bot, {})
        refused = hosts.setdefault(error.host, set())
        refused.add(session.session_id)
        if len(hosts) > MAX_REFUSED_HOSTS:
            hosts.pop(next(iter(hosts)))
        if len(refused) < MAX_REFUSALS and not session.probe:
            return False
        if await self._queue.hold(session.bot, session.kind, error.reason, facts_of(error)):
            log.error("bot_held", reason=error.reason, **facts_of(error))
        return True

    def forget_host_refusals(self, bot: str) -> None:
        """A file of this bot was stored: its list is not that short."""
        self._refusals.pop(bot, None)

    async def release_after(self, attempt: Attempt, outcome: Outcome) -> None:
        """End a hold, if the probe that this attempt was proves that its reason is gone."""
        answered = any(event["event"] == "asked" and event["data"]["http_status"] == 200 for event in attempt.events)
        # Refused alone, while the harmless call was let in: that proves as much.
        answered = answered or getattr(outcome, "reason", "") == "access_denied"
        disproven = ["credentials_rejected"] if answered else []
        if isinstance(outcome, Archived):
            disproven.append("media_host_refused")
        session = attempt.session
        try:
            if await self._queue.release(session.bot, session.kind, disproven):
                log.info("bot_released", bot=session.bot, kind=session.kind)
        except DatabaseError as error:
            # It stays held until the next probe.
            log.warning("database_unavailable", **facts_of(error))

    async def try_credentials(self) -> None:
        """Try at once, not in five minutes, the kinds that are held for other credentials than these. Returns when done."""
        try:
            held = await self._queue.list_rejected_credentials(list(self._bots))
            await asyncio.gather(*(self._try_credentials_of(*refused) for refused in held))
        except Exception as error:  # noqa: BLE001  # whatever goes wrong here, a session tries again within five minutes
            log.warning("credential_probe_failed", error=str(error) or type(error).__name__)
        finally:
            self._wake()

    async def _try_credentials_of(self, bot: str, kind: str, refused: str | None) -> None:
        access = self._bots.get(bot)
        if access is None or await asyncio.to_thread(access.client.signer.recognises, refused):
            return
        verdict = await self._probes.access(bot, kind, time.monotonic())
        match verdict.error:
            case None:
                if await self._queue.release(bot, kind, ["credentials_rejected"]):
                    log.info("bot_released", bot=bot, kind=kind)
            case CredentialsRejected():
                await self.hold_for_credentials(bot, kind, verdict.error)
            case BudgetSpent():
                pass
            case RateLimited():
                await access.quota.block(verdict.error.retry_after)
            case _:
                log.warning("credential_probe_failed", bot=bot, **facts_of(verdict.error))

    async def unblock_budgets(self) -> None:
        """Try budgets that the platform has blocked for longer than one should believe: each by one worker at a time. Never
        returns.
        """
        while True:
            wait = BUDGET_LOOK_SECONDS
            keys = {bot.quota.key for bot in self._bots.values()}
            try:
                turns = await self._queue.due_probes(list(keys))
                wait = min([wait, *(due.total_seconds() for due in turns.values() if due > timedelta(0))])
                due = [key for key, due_in in turns.items() if due_in <= timedelta(0)]
                askable = await self._askable(due)
                unblocked = await asyncio.gather(*(self._probes.budget(askable[key]) for key in askable))
                for key in itertools.compress(askable, unblocked):
                    log.info("budget_unblocked", budget=key)
                    self._wake()
            except Exception as error:  # noqa: BLE001  # whatever breaks a probe, the block ends by itself
                log.warning("budget_probing_failed", error=str(error) or type(error).__name__)
            await asyncio.sleep(max(wait, 0.1))

    async def _askable(self, keys: Collection[str]) -> dict[str, list[tuple[str, str]]]:
        """By budget, the bots and kinds that a call may be made for: what is paused or held waits for a person. A budget that has
        none opens by itself.
        """
        names = [name for name, bot in self._bots.items() if bot.quota.key in keys]
        found: dict[str, list[tuple[str, str]]] = {}
        for bot, kind in await self._queue.find_open_kinds(names) if names else ():
            if bot in self._bots:
                found.setdefault(self._bots[bot].quota.key, []).append((bot, kind))
        return found
