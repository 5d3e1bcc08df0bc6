"""What serves the bots: a client, connections and budgets for each, made again where the configuration changes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from archiver.archive.context import BotAccess
from archiver.archive.media import MediaClient, MediaHosts
from archiver.config import BotSettings, Budget, Settings, account_budgets, sessions_budgets
from archiver.kore.client import KoreClient
from archiver.kore.exchange import api_session
from archiver.observe.logs import logger
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.quota import Quota
from archiver.runtime.bandwidth import Bandwidth
from archiver.runtime.network import Network
from archiver.worker.bots import Bots, Close

log = logger(__name__)


class Access:
    """Serves the bots of the configuration. The API's connections and the media's never meet."""

    def __init__(self, settings: Settings, database: Database, tally: Tally) -> None:
        self.bots = Bots()
        self._settings = settings
        self._database = database
        self._tally = tally
        self._network = Network.of(settings.network)
        self._bandwidth = Bandwidth(settings.transfer.max_bandwidth)
        self._accounts: dict[str, Quota] = {}
        self._sessions: dict[str, Quota] = {}

    async def change(self, settings: Settings, keys: Mapping[str, str]) -> list[str]:
        """Serve the bots of these settings from now on, each signing with its key in `keys`. Returns the names of those that are
        new, gone or served in another way. What is the same keeps its connections, its token and what is known of its budget.

        Raises ConfigError for a key that cannot sign: then nothing was changed.
        """
        accounts, sessions = account_budgets(settings.bots), sessions_budgets(settings.bots)
        all_accounts = self._quotas(self._accounts, accounts)
        all_sessions = self._quotas(self._sessions, sessions)
        made: list[tuple[BotAccess, Close]] = []
        try:
            for bot in settings.bots:
                quota, other = all_accounts[accounts[bot.name].key], all_sessions[sessions[bot.name].key]
                if not self._serves(bot, settings, keys.get(bot.name), quota, other):
                    made.append(await self._made(bot, settings, keys.get(bot.name), quota, other))
        except BaseException:
            for _, close in made:
                await close()
            raise
        # From here on nothing can fail, and nobody else comes between.
        for budgets, quotas in ((accounts, all_accounts), (sessions, all_sessions)):
            for budget in budgets.values():
                quotas[budget.key].limit(budget.limits, counted=budget.counted)
        self._accounts, self._sessions, self._settings = all_accounts, all_sessions, settings
        self._bandwidth.change(settings.transfer.max_bandwidth)
        gone = sorted(set(self.bots) - {bot.name for bot in settings.bots})
        for name in gone:
            self.bots.remove(name)
        for access, close in made:
            self.bots.serve(access, close)
        return [*(access.settings.name for access, _ in made), *gone]

    def _quotas(self, known: Mapping[str, Quota], budgets: Mapping[str, Budget]) -> dict[str, Quota]:
        """By what the platform counts by: bots that share a budget share one."""
        base = self._settings.retry.backoff_base
        return {
            budget.key: known.get(budget.key)
            or Quota(self._database, budget.key, budget.limits, backoff_base=base, counted=budget.counted)
            for budget in dict.fromkeys(budgets.values())
        }

    def _serves(self, bot: BotSettings, settings: Settings, key: str | None, quota: Quota, sessions_quota: Quota) -> bool:
        """Whether the bot is served so already."""
        access = self.bots.get(bot.name)
        shared = {"max_bandwidth": None}  # changed in its place
        same_terms = settings.transfer.model_copy(update=shared) == self._settings.transfer.model_copy(update=shared)
        return (
            access is not None
            and bot.name in self.bots
            and same_terms
            and access.settings == bot
            and (key is None or access.client.signer.signs_with(key))
            and access.quota is quota
            and access.sessions_quota is sessions_quota
        )

    async def _made(
        self, bot: BotSettings, settings: Settings, key: str | None, quota: Quota, sessions_quota: Quota
    ) -> tuple[BotAccess, Close]:
        stack = AsyncExitStack()
        try:
            http = await stack.enter_async_context(api_session(self._network))
            media = MediaClient(MediaHosts.of(bot), settings.transfer, bandwidth=self._bandwidth, network=self._network)
            stack.push_async_callback(media.close)
            client = KoreClient(
                bot,
                http,
                max_files=settings.worker.max_files_per_session,
                terms=settings.transfer,
                on_retry=_log_retries(bot.name),
                on_call=partial(self._tally.api_calls.update, (bot.name,)),
            )
            if key is not None:
                client.signer.take_key(key)
                client.signer.token()
            if (former := self.bots.get(bot.name)) is not None and former.settings.host == bot.host:
                client.signer.clock_offset = former.client.signer.clock_offset
        except BaseException:
            await stack.aclose()
            raise
        return BotAccess(bot, client, media, quota, sessions_quota), stack.aclose


def _log_retries(bot: str) -> Callable[[Exception, float], None]:
    def log_retry(error: Exception, wait: float) -> None:
        log.info("api_call_retried", bot=bot, error=str(error), wait_seconds=round(wait, 2))

    return log_retry


@asynccontextmanager
async def serving_bots(settings: Settings, database: Database, tally: Tally | None = None) -> AsyncIterator[Access]:
    """What serves the bots of these settings, until the end. Keys are read when they are first needed. The `tally` counts the
    calls.
    """
    access = Access(settings, database, tally or Tally())
    try:
        await access.change(settings, {})
        yield access
    finally:
        await access.bots.close()
