"""Whether a refusal concerns one session alone: the same bot makes a call that concerns no session, and sees what comes of it.

One answer must not hold a bot, nor its budget, for the whole fleet: a session may belong to another app, and a platform may
refuse it alone. What the call costs is drawn from the budget like any other.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from archiver.archive.context import BotAccess
from archiver.errors import ArchiverError, BudgetSpent, DatabaseError, KoreError, RateLimited
from archiver.kore.exchange import Asked, first_paid
from archiver.observe.logs import logger
from archiver.worker.bots import Bots

log = logger(__name__)

GOOD_FOR = 10.0
"""Seconds that a verdict stands for those who come after it: many sessions may be refused at once, or one after the other."""


@dataclass(frozen=True)
class Verdict:
    """What the harmless call of `bot` came to, and when, by the monotonic clock: what was `said`, or the `error`."""

    bot: BotAccess
    at: float
    said: str = ""
    error: ArchiverError | None = None

    @property
    def let_in(self) -> bool:
        """The bot's credentials and its scope for this kind are good."""
        return self.error is None

    def stands_for(self, since: float) -> bool:
        """Whether it answers somebody who was refused in an attempt that began at `since`. Credentials that were refused may have
        been mended by now; where they are good, a minute more or less is no matter.
        """
        return time.monotonic() - self.at < GOOD_FOR and (self.let_in or since <= self.at)


class Probes:
    """Makes the harmless calls of one worker."""

    def __init__(self, bots: Bots) -> None:
        self._bots = bots
        self._one_at_a_time: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._verdicts: dict[tuple[str, str], Verdict] = {}

    async def access(self, bot: str, kind: str, since: float) -> Verdict:
        """Whether a bot is let in for a kind, for somebody who was refused in an attempt that began at `since`. Of many who ask
        at once one makes the call. If what serves the bot is replaced meanwhile, what it is now is asked. Raises DatabaseError.
        """
        async with self._one_at_a_time[bot, kind]:
            verdict = self._verdicts.get((bot, kind))
            while verdict is None or verdict.bot is not self._bots[bot] or not verdict.stands_for(since):
                with self._bots.using(bot) as access:
                    verdict = self._verdicts[bot, kind] = await self._ask(access, kind)
                if verdict.bot is self._bots[bot]:
                    break
        return verdict

    async def _ask(self, bot: BotAccess, kind: str) -> Verdict:
        try:
            http_status, status = await bot.client.probe(kind=kind, draw=bot.quota.draw)
        except DatabaseError:
            raise
        except ArchiverError as error:
            return Verdict(bot, time.monotonic(), error=error)
        return Verdict(bot, time.monotonic(), status or f"HTTP {http_status}")

    async def budget(self, askable: Sequence[tuple[str, str]]) -> bool:
        """Whether a budget, blocked for long, is open again: its turn was taken, and the call was not refused for the rate.
        `askable`: the bots of it that a call may be made for, each with a kind. One of them is taken by lot: none can keep the
        turn from the others for ever. Raises DatabaseError.
        """
        bot, kind = random.choice(askable)  # noqa: S311  # a lot, no secret
        with self._bots.using(bot) as access:
            return await self._try_budget(bot, kind, access, alone=len(askable) == 1)

    async def _try_budget(self, bot: str, kind: str, access: BotAccess, *, alone: bool) -> bool:
        if not await access.quota.take_probe():
            return False
        asked: list[Asked] = []
        draw = first_paid(lambda: access.quota.draw(timedelta(0)))
        refused: RateLimited | None = None
        try:
            await access.client.probe(kind=kind, draw=draw, on_answer=asked.append)
        except BudgetSpent:
            pass  # a second call, for which there is no turn; the answer to the first one counts
        except RateLimited as error:
            refused = error
        except KoreError as error:
            log.info("budget_probe_failed", bot=bot, error=error.message)
        if refused is not None:
            if refused.retry_after:
                await access.quota.probed(refused.retry_after)
            return False
        if not asked or asked[-1].http_status is None:
            return False  # nobody answered: the next turn will tell
        if asked[-1].http_status in (401, 403) and not alone:
            return False  # this bot would have been refused anyway; another one may tell more
        await access.quota.probed()
        return True
