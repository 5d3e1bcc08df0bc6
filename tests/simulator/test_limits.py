"""The rate limits."""

from __future__ import annotations

import pytest

from archiver.simulator.limits import (
    GENERAL_MESSAGE,
    HOURLY_MESSAGE,
    PER_MINUTE_MESSAGE,
    SlidingWindows,
    parse_limit,
    retry_after_header,
)
from archiver.simulator.platform import SimulatorSettings
from tests.simulator.conftest import SESSION, Client


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_window_slides() -> None:
    clock = Clock()
    windows = SlidingWindows(clock)
    for at in (0.0, 30.0):
        clock.now = at
        assert windows.check(["2/minute"]) is None
        windows.count()
    clock.now = 59.0
    refusal = windows.check(["2/minute"])
    assert refusal is not None
    assert refusal.retry_after == 1.0
    clock.now = 60.0
    assert windows.check(["2/minute"]) is None
    windows.count()
    clock.now = 89.9
    assert windows.check(["2/minute"]) is not None
    assert windows.most == {"second": 1, "minute": 2, "hour": 3}


def test_refused_calls_do_not_count() -> None:
    clock = Clock()
    windows = SlidingWindows(clock)
    windows.count()
    for _ in range(100):
        assert windows.check(["1/minute"]) is not None
    clock.now += 60
    assert windows.check(["1/minute"]) is None


def test_the_limit_that_lasts_longest_answers() -> None:
    clock = Clock()
    windows = SlidingWindows(clock)
    for _ in range(3):
        windows.count()
    both = windows.check(["3/minute", "3/hour"])
    assert both is not None
    assert (both.message, both.retry_after) == (HOURLY_MESSAGE, 3600.0)
    assert windows.check([]) is None


def test_a_limit_lowered_meanwhile_says_when_it_frees() -> None:
    clock = Clock()
    windows = SlidingWindows(clock)
    for at in (0.0, 10.0, 20.0):
        clock.now = at
        windows.count()
    refusal = windows.check(["2/minute"])
    assert refusal is not None
    assert refusal.retry_after == 50.0


@pytest.mark.parametrize(("seconds", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (3599.5, "3600")])
def test_retry_after_is_in_whole_seconds_rounded_up(seconds: float, header: str) -> None:
    assert retry_after_header(seconds) == header


@pytest.mark.parametrize("text", ["60", "60/day", "0/minute", "-1/minute", "60 /minute", "6e1/minute", ""])
def test_an_unreadable_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="N/minute"):
        parse_limit(text)
    with pytest.raises(ValueError, match="N/minute"):
        SimulatorSettings(rate_limits=(text,))


async def test_past_the_minutes_limit_calls_are_refused_with_its_message(client: Client) -> None:
    client.sim.settings.account_rate_limits = ("3/minute", "1800/hour")
    answers = [await client.ask() for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].message == "You've exceeded the per-minute rate limit. Please wait for sometime before retrying."
    assert 58 <= int(answers[3].headers["Retry-After"]) <= 60
    api = client.sim.report()["api"]
    assert (api["calls"], api["rate_limited"], api["max_in_window"]) == (5, 2, {"minute": 3, "hour": 3})


async def test_past_the_hours_limit_calls_are_refused_with_its_message(client: Client) -> None:
    client.sim.settings.account_rate_limits = ("60/minute", "2/hour")
    answer = [await client.ask() for _ in range(3)][-1]
    assert answer.message == "You've exceeded the hourly rate limit. Please wait for sometime before retrying."
    assert 3590 <= int(answer.headers["Retry-After"]) <= 3600


async def test_the_refusal_can_be_another_status_or_without_retry_after(client: Client) -> None:
    client.sim.settings.account_rate_limits = ("1/hour",)
    await client.ask()
    client.sim.settings.retry_after = False
    silent = await client.ask()
    assert (silent.status, silent.headers.get("Retry-After")) == (429, None)
    client.sim.settings.retry_after = True
    for status in (200, 400, 401, 403):
        client.sim.settings.rate_limit_status = status
        other = await client.ask()
        assert (other.status, other.headers.get("Retry-After")) == (status, None)
        assert other.message == HOURLY_MESSAGE


async def test_recordings_voicemails_and_call_details_of_all_bots_of_an_account_share_its_limit(client: Client) -> None:
    """The sessions history has a limit of each bot's own."""
    made = await client.control("POST", "bots", [{"bot_id": "st-two", "client_id": "cs-two", "client_secret": "2" * 64}])
    assert (made.status, made.json) == (200, {"bots": 1})
    two = client.token("2" * 64, appId="cs-two")
    client.sim.settings.account_rate_limits = ("5/minute",)
    client.sim.settings.rate_limits = ("1/hour",)
    bots = {client.sim.bot_id: client.token(), "st-two": two}

    async def ask(path: str, bot_id: str) -> int:
        url = f"{client.sim.api_url}/api/{path.format(bot_id)}?sessionId=s"
        async with client.http.get(url, headers={"auth": bots[bot_id]}) as response:
            return response.status

    paths = ("public/bot/{}/v2/recordings", "1.1/public/bot/{}/recordings", "public/bot/{}/voicemail")
    assert [await ask(path, bot) for bot in bots for path in paths[:2]] == [200] * 4
    assert (await client.details(headers={"auth": two, "iId": "st-two"})).status == 200
    assert [await ask(path, bot) for bot in bots for path in paths] == [429] * 6
    assert (await client.details()).message == PER_MINUTE_MESSAGE
    for bot, token in bots.items():
        assert [(await client.sessions(bot_id=bot, token=token)).status for _ in range(2)] == [200, 429]
    assert (await client.sessions()).message == HOURLY_MESSAGE
    report = client.sim.report()
    assert (report["api"]["max_in_window"]["minute"], report["listings"]["max_in_window"]["minute"]) == (5, 1)


async def test_a_bot_that_cannot_be_is_not_added(client: Client) -> None:
    refused = await client.control("POST", "bots", [{"bot_id": "st-two", "client_id": "cs-two"}])
    assert refused.status == 400
    assert "bot: client_secret: " in refused.message


async def test_a_scripted_refusal_has_every_wording_in_turn(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "rate_limited", "http_status": 200}]})
    assert [(await client.ask()).message for _ in range(4)] == [
        GENERAL_MESSAGE,
        PER_MINUTE_MESSAGE,
        HOURLY_MESSAGE,
        GENERAL_MESSAGE,
    ]


async def test_limits_are_counted_per_account_and_after_authentication(client: Client) -> None:
    client.sim.add_bot("st-two", "cs-two", "2" * 64, "a-two")
    client.sim.settings.account_rate_limits = ("1/minute",)
    assert (await client.ask(token="no token")).status == 401
    assert (await client.ask()).status == 200
    assert (await client.ask()).status == 429
    assert (await client.ask(token="no token")).status == 401
    two = client.token("2" * 64, appId="cs-two")
    assert (await client.ask(bot_id="st-two", token=two)).status == 200
    assert (await client.ask(bot_id="st-two", token=two)).status == 429


async def test_without_limits_everything_passes(client: Client) -> None:
    client.sim.settings.account_rate_limits = ()
    assert {(await client.ask()).status for _ in range(80)} == {200}
    assert client.sim.report()["api"]["max_in_window"] == {"minute": 80, "hour": 80}
