"""What the platform counts together, and how many calls of it there may be.

Recordings, voicemail and call details are counted by the account, over all of its bots and everybody who asks for them; the
sessions history by the bot. Source: the platform's pages on rate limits, of contact center AI and of the automation APIs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from archiver.config.bots import BotSettings
from archiver.config.values import RateLimit

MINUTE = timedelta(minutes=1)

COUNTED = 6000
"""Up to so many calls a minute those of a budget with one limit are written down, too."""

ACCOUNT_LIMITS = (RateLimit(MINUTE, 60),)
"""Of an account, unless the platform's support has raised it. It names none by the hour."""

SESSIONS_LIMITS = (RateLimit(MINUTE, 60), RateLimit(timedelta(hours=1), 1800))
"""Of a bot's sessions history."""

BY_ACCOUNT = "recordings, voicemail, call details"
BY_BOT = "sessions history (getSessions)"


@dataclass(frozen=True)
class Budget:
    """Calls of an account or a bot. `source`: where the limits come from. `bots`: the configured ones that draw on it."""

    key: str
    of: str
    calls: str
    limits: tuple[RateLimit, ...]
    source: str
    bots: tuple[str, ...]
    alone: bool = True
    """No other budget has its key: what is counted by that is its own."""

    @property
    def counted(self) -> bool:
        """Whether its calls are written down one by one, so that people can see how many there were: each costs a row."""
        return len(self.limits) > 1 or (self.alone and any(each.calls <= COUNTED * each.window / MINUTE for each in self.limits))

    @property
    def written_limits(self) -> list[str]:
        """Its limits as they are written in the configuration."""
        return [str(limit) for limit in self.limits]


def account_budgets(bots: Sequence[BotSettings]) -> dict[str, Budget]:
    """What each bot's recordings, voicemail and call details draw on, by the bot's name. A bot without `account_id` is an account
    of its own. Raises ValueError where bots of one account contradict each other, or one is said to be of two accounts.
    """
    _check_accounts(bots)
    found: dict[str, Budget] = {}
    for shared, group in _grouped(bots, lambda bot: bot.account_budget_key):
        limits, source = _account_limits(group)
        first = group[0]
        of = f"account {first.account_id}" if first.account_id else _named(group)
        # A bot that stands for its account draws all from one budget, unless somebody says that they are two: of one key there
        # can be one pace only, and who has the slower one would never get a call.
        apart = not first.account_id and any(bot.account_rate_limits is not None for bot in group)
        key = f"{shared}|recordings" if apart else shared
        alone = apart or bool(first.account_id)
        budget = Budget(key, of, BY_ACCOUNT, limits, source, tuple(bot.name for bot in group), alone)
        found |= dict.fromkeys(budget.bots, budget)
    return found


def sessions_budgets(bots: Sequence[BotSettings]) -> dict[str, Budget]:
    """The same for the sessions history."""
    found: dict[str, Budget] = {}
    for key, group in _grouped(bots, lambda bot: bot.budget_key):
        limits, source = _tightest(group) or (SESSIONS_LIMITS, "default")
        budget = Budget(key, _named(group), BY_BOT, limits, source, tuple(bot.name for bot in group))
        found |= dict.fromkeys(budget.bots, budget)
    return found


def all_budgets(bots: Sequence[BotSettings]) -> list[Budget]:
    """Every budget there is, once."""
    return list(dict.fromkeys([*account_budgets(bots).values(), *sessions_budgets(bots).values()]))


def _check_accounts(bots: Sequence[BotSettings]) -> None:
    for _, (first, *others) in _grouped(bots, lambda bot: bot.budget_key):
        for bot in others:
            if bot.account_id != first.account_id:
                raise ValueError(
                    f'bots: "{first.name}" and "{bot.name}" must have the same account_id, not "{first.account_id}" and '
                    f'"{bot.account_id}": they are one bot ({bot.bot_id}), whose calls would be counted twice'
                )


def _grouped(bots: Sequence[BotSettings], key: Callable[[BotSettings], str]) -> Iterable[tuple[str, list[BotSettings]]]:
    groups: dict[str, list[BotSettings]] = {}
    for bot in bots:
        groups.setdefault(key(bot), []).append(bot)
    return groups.items()


def _account_limits(group: Sequence[BotSettings]) -> tuple[tuple[RateLimit, ...], str]:
    writing = [bot for bot in group if bot.account_rate_limits is not None]
    if not writing:
        return _tightest(group) or (ACCOUNT_LIMITS, "default")
    first = writing[0]
    for bot in writing:
        if bot.account_rate_limits != first.account_rate_limits:
            raise ValueError(
                f'bots: "{first.name}" and "{bot.name}" must have the same account_rate_limits, or one of them none, not '
                f"{_shown(first.account_rate_limits)} and {_shown(bot.account_rate_limits)}: they are of one account "
                f"({bot.account_id or bot.bot_id}), all of whose bots the platform counts together"
            )
    return first.account_rate_limits or (), f"account_rate_limits of {_named(writing)}"


def _tightest(group: Sequence[BotSettings]) -> tuple[tuple[RateLimit, ...], str] | None:
    """Of each window the fewest calls that any of these bots has in its `rate_limits`. None: none has any."""
    writing = [bot for bot in group if bot.rate_limits is not None]
    if not writing:
        return None
    fewest: dict[timedelta, int] = {}
    for limit in (limit for bot in writing for limit in bot.rate_limits or ()):
        fewest[limit.window] = min(limit.calls, fewest.get(limit.window, limit.calls))
    limits = tuple(sorted(RateLimit(window, calls) for window, calls in fewest.items()))
    return limits, ("the tightest rate_limits of " if len(writing) > 1 else "rate_limits of ") + _named(writing)


def _named(bots: Sequence[BotSettings]) -> str:
    return ("bots " if len(bots) > 1 else "bot ") + ", ".join(bot.name for bot in bots)


def _shown(limits: tuple[RateLimit, ...] | None) -> str:
    return "[" + ", ".join(f'"{limit}"' for limit in limits or ()) + "]"
