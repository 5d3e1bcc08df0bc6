"""The rate limits."""

from __future__ import annotations

import pytest

from archiver.simulator.limits import SlidingWindows, parse_limit, retry_after_header
from archiver.simulator.platform import SimulatorSettings

from .conftest import Client


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
    assert (both.message, both.retry_after) == ("Rate limit for this API has been reached. Please try again later", 3600.0)
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
    client.sim.settings.rate_limits = ("3/minute", "1800/hour")
    answers = [await client.ask() for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[3].message.startswith("You've exceeded the per-minute rate limit of 3 ")
    assert 58 <= int(answers[3].headers["Retry-After"]) <= 60
    api = client.sim.report()["api"]
    assert (api["calls"], api["rate_limited"], api["max_in_window"]) == (5, 2, {"minute": 3, "hour": 3})


async def test_past_the_hours_limit_calls_are_refused_with_its_message(client: Client) -> None:
    client.sim.settings.rate_limits = ("60/minute", "2/hour")
    answer = [await client.ask() for _ in range(3)][-1]
    assert answer.message == "Rate limit for this API has been reached. Please try again later"
    assert 3590 <= int(answer.headers["Retry-After"]) <= 3600


async def test_the_refusal_can_be_another_status_or_without_retry_after(client: Client) -> None:
    client.sim.settings.rate_limits = ("1/hour",)
    await client.ask()
    client.sim.settings.retry_after = False
    silent = await client.ask()
    assert (silent.status, silent.headers.get("Retry-After")) == (429, None)
    client.sim.settings.retry_after = True
    client.sim.settings.rate_limit_status = 400
    other = await client.ask()
    assert (other.status, other.headers.get("Retry-After")) == (400, None)
    assert "Rate limit" in other.message


async def test_limits_are_counted_per_bot_and_after_authentication(client: Client) -> None:
    client.sim.add_bot("st-two", "cs-two", "2" * 64)
    client.sim.settings.rate_limits = ("1/minute",)
    assert (await client.ask(token="no token")).status == 401
    assert (await client.ask()).status == 200
    assert (await client.ask()).status == 429
    assert (await client.ask(token="no token")).status == 401
    two = client.token("2" * 64, appId="cs-two")
    assert (await client.ask(bot_id="st-two", token=two)).status == 200
    assert (await client.ask(bot_id="st-two", token=two)).status == 429


async def test_without_limits_everything_passes(client: Client) -> None:
    client.sim.settings.rate_limits = ()
    assert {(await client.ask()).status for _ in range(80)} == {200}
    assert client.sim.report()["api"]["max_in_window"] == {"minute": 80, "hour": 80}
