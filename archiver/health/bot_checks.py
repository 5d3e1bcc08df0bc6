"""The checks of `doctor` that ask the platform for one bot."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

from archiver.archive.context import BotAccess
from archiver.config import BotSettings
from archiver.errors import ApiDefect, ArchiverError, CredentialsRejected, KoreError, RateLimited
from archiver.health.findings import Finding, of_error
from archiver.kore.answers import APP_REFUSED, SCOPE_REFUSED, TOKEN_REFUSED, with_colon
from archiver.kore.clock import MAX_OFFSET, ahead_of_ours, is_credible, skew_hint
from archiver.kore.exchange import THEN_RESUME, Asked, Pay
from archiver.kore.listings.calls import Span
from archiver.kore.listings.sources import Source, sources_in_use, sources_of

SKEW_WARNING = 30.0
SKEW_FAILURE = 240.0
"""Seconds between the API's clock and ours. Tokens are good for ten minutes, and signed URLs for a few."""

SPENT = "other programs use the same budget: try again in a minute"
"""What to do where the rate limit is met."""


def draws(bot: BotAccess, *, budget: bool) -> tuple[Pay, Pay]:
    """What draws a call from the bot's budget, and from its account's; nothing, unless there is a `budget` to draw from."""

    async def from_bot() -> None:
        if budget:
            await bot.sessions_quota.draw()

    async def from_account() -> None:
        if budget:
            await bot.quota.draw()

    return from_bot, from_account


async def check_bot(bot: BotAccess, *, budget: bool) -> list[Finding]:
    """A signed token, one harmless call, and what its answer says of the clocks. `budget`: the call may be drawn from it.

    A refusal is the failure of what it concerns: `client_secret`, `client_id`, `bot_id` or `scope`, as far as it can be told.
    """
    check = f"bot {bot.settings.name}"
    asked: list[Asked] = []
    _, draw = draws(bot, budget=budget)
    try:
        bot.client.signer.token()
    except ArchiverError as error:
        return [of_error(f"{check}: token", error)]
    found = [Finding(f"{check}: token", "ok", f"signed with {bot.settings.algorithm}")]
    ours = datetime.now(UTC)
    try:
        http_status, status = await bot.client.probe(draw=draw, on_answer=asked.append)
        answer = f'"{status}"' if status else f"HTTP {http_status}"
        found.append(Finding(f"{check}: API", "ok", f"{bot.settings.host} answered {answer} for an unknown session"))
    except RateLimited as error:
        found.append(Finding(f"{check}: API", "warning", error.message, SPENT))
    except CredentialsRejected as error:
        found.append(await _refusal(check, bot, error, asked, draw))
    except KoreError as error:
        answered = error.facts.get("http_status")
        if isinstance(answered, int) and answered < 400:
            hint = "this is not the platform's API (another host, a proxy, a login page?): check bots.host"
            found.append(Finding(f"{check}: API", "failure", f"{bot.settings.host}: {error.message}", hint))
        else:
            found.append(Finding(f"{check}: API", "failure", error.message, error.hint or "check bots.host and the network"))
    except ArchiverError as error:
        found.append(of_error(f"{check}: API", error))
    dates = [exchange.date for exchange in asked if exchange.date is not None]
    if dates:
        found.append(_skew(f"{check}: clock", (dates[0] - ours).total_seconds()))
    return found


async def _refusal(check: str, bot: BotAccess, error: CredentialsRejected, asked: list[Asked], draw: Pay) -> Finding:
    """Which key of the bot the platform refuses, or that the app lacks a scope."""
    settings, said, http_status = bot.settings, str(error.facts.get("said", "")), error.facts.get("http_status")
    bots, why = f"bots.{settings.name}", f"(HTTP {http_status}{with_colon(said)})"
    if SCOPE_REFUSED.fullmatch(said):
        return Finding(f"{check}: scope", "failure", f"the app may not ask for recordings {why}", error.hint)
    if TOKEN_REFUSED.fullmatch(said):
        key, mend = _key(settings)
        theirs = next((each.date for each in reversed(asked) if each.date is not None), None)
        clock_hint, _ = skew_hint(theirs)
        if not is_credible(ahead_of_ours(theirs)):
            message = f"the platform refuses the token {why}, and this machine's clock alone may be why"
            return Finding(f"{check}: API", "failure", message, f"{clock_hint}; if it is still refused then: {mend}")
        hint = f"{mend}; it must be that of the app of {bots}.client_id, which must expect {settings.algorithm}; {THEN_RESUME}"
        hint = "; else ".join(filter(None, (clock_hint, hint)))
        return Finding(f"{check}: {key}", "failure", f"the platform cannot verify the token {why}", hint)
    to_bot = f"copy the bot ID from the bot's App Settings into {bots}.bot_id; it must be a bot of the app of {bots}.client_id"
    to_app = f"copy the app's client ID into {bots}.client_id, and see that {bots}.host is of the region where the app was made"
    knows_app: bool | None = True
    if http_status == 404:
        message = f"{settings.host} knows no bot {settings.bot_id} {why}"
    elif not APP_REFUSED.fullmatch(said):
        return of_error(f"{check}: API", error)
    else:
        try:
            knows_app = await bot.client.knows_app(draw=draw)
        except KoreError:
            knows_app = None
        message = f"the platform knows the app, but not as one of bot {settings.bot_id} {why}"
    if knows_app:
        return Finding(f"{check}: bot_id", "failure", message, f"{to_bot}; {THEN_RESUME}")
    if knows_app is False:
        message = f"the platform knows no app of this client_id {why}"
        return Finding(f"{check}: client_id", "failure", message, f"{to_app}; if both are right, {to_bot}; {THEN_RESUME}")
    message = f"the platform knows no such app, or not as one of bot {settings.bot_id} {why}"
    return Finding(f"{check}: bot_id", "failure", message, f"{to_bot}; or {to_app}; {THEN_RESUME}")


def _key(settings: BotSettings) -> tuple[str, str]:
    """What signs the bot's tokens, by its key in the configuration, and what to do if it does not fit."""
    name = f"bots.{settings.name}"
    if settings.algorithm.startswith("RS"):
        return "private_key_file", f"give the app the public key of the one in {name}.private_key_file"
    key = "client_secret" if settings.client_secret_file is None else "client_secret_file"
    return key, f"copy the app's secret once more into {name}.{key}"


async def check_listing(bot: BotAccess, *, budget: bool, used_before: Collection[str] = ()) -> tuple[Finding, Source | None]:
    """Whether its calls can be listed, by asking for those of the last second; and the source that answered. `budget`: the call
    may be drawn from it. `used_before`: the sources that listed them before.
    """
    check = f"bot {bot.settings.name}: listing of calls"
    from_bot, from_account = draws(bot, budget=budget)
    now = datetime.now(UTC).replace(microsecond=0)
    refused: list[tuple[str, ArchiverError]] = []
    for source in sources_in_use(sources_of(bot.client, sessions=from_bot, details=from_account), used_before):
        try:
            await source.page(Span(now - timedelta(seconds=1), now), 0, 0)
        except (CredentialsRejected, ApiDefect) as error:
            refused.append((source.name, error))
            if source.name in used_before:
                break  # it is not given up for another
        except ArchiverError as error:
            hint = error.hint or "try again; `discover` needs it"
            return Finding(check, "warning", f"{source.name}: {error.message}", hint), None
        else:
            message = f"{source.name} answered"
            # Not every account has interaction details: that alone is no fault.
            lost = [(name, error) for name, error in refused if name != "interaction_details" or source.name == "sessions"]
            if not lost:
                return Finding(check, "ok", message), source
            return Finding(check, "warning", f"{message}, but it says less of a call", "; ".join(_refusals(lost))), source
    hints = "; or ".join(_refusals(refused))
    message = "the platform refuses to list calls: `discover`, `nightly`, `backfill` and `reconcile` cannot work"
    return Finding(check, "warning", message, hints), None


def _refusals(refused: Iterable[tuple[str, ArchiverError]]) -> list[str]:
    """Each listing's error and hint; those with the same words together."""
    names_by_words: dict[str, list[str]] = {}
    for name, error in refused:
        words = [error.hint] if isinstance(error, CredentialsRejected) else [error.message, error.hint]
        names_by_words.setdefault("; ".join(filter(None, words)), []).append(name)
    return [f"{' and '.join(names)}: {words}" for words, names in names_by_words.items()]


def _skew(check: str, seconds: float) -> Finding:
    text = f"{abs(seconds):.0f} s {'behind' if seconds > 0 else 'ahead of'} the platform's"
    hint = "set this machine's clock (NTP): the platform judges tokens and signed URLs by its own"
    if abs(seconds) > MAX_OFFSET:
        hint += "; tokens are adapted to it by an hour at most. If this clock is right, check what answers at bots.host"
    if abs(seconds) > SKEW_FAILURE:
        return Finding(check, "failure", f"this clock is {text}", hint)
    if abs(seconds) > SKEW_WARNING:
        return Finding(check, "warning", f"this clock is {text}", hint)
    return Finding(check, "ok", "agrees with the platform's")
