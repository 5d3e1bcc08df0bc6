"""The texts that the vendor says a rate limit with: in whatever shape and under whatever HTTP status, it is one, and nothing
else. Before a 401 or 403 means bad credentials, and before a 5xx is asked again: either would spend more calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from archiver.errors import KoreError, RateLimited
from archiver.simulator.platform import Simulator
from tests.kore.conftest import KoreHarness, asking, bot_of, http_answer, raw_server

TEXTS = {
    "per minute": "You've exceeded the per-minute rate limit. Please wait for sometime before retrying.",
    "hourly": "You've exceeded the hourly rate limit. Please wait for sometime before retrying.",
    "older": "Rate limit for this API has been reached. Please try again later",
    "quality per minute": "You've exceeded the per-minute rate limit. wait for sometime before retrying.",
    "quality hourly": "You've exceeded the hourly rate limit. Wait for sometime before retrying.",
}

SHAPES: dict[str, Callable[[str], Any]] = {
    "a list of errors": lambda text: {"errors": [{"msg": text, "code": 4002}]},
    "a list with message": lambda text: {"errors": [{"message": text}]},
    "one error": lambda text: {"errors": {"msg": text, "code": 4002}},
    "a list of texts": lambda text: {"errors": [text]},
    "a text for errors": lambda text: {"errors": text},
    "msg": lambda text: {"msg": text},
    "message": lambda text: {"message": text, "statusCode": 429},
    "error": lambda text: {"error": text},
    "an error within": lambda text: {"error": {"msg": text}},
    "a JSON text": lambda text: text,
}

STATUSES = (200, 400, 401, 403, 412, 429, 500, 503)


async def refused(kore: KoreHarness) -> None:
    with pytest.raises(RateLimited):
        await kore.ask()
    assert (kore.draws, len(kore.asked), kore.retries) == (1, 1, [])


@pytest.mark.parametrize("status", STATUSES)
async def test_a_rate_limit_is_one_whatever_its_status_shape_and_wording(simulator: Simulator, status: int) -> None:
    said: list[bytes] = []
    async with raw_server(lambda _: http_answer(said[-1], f"{status} Whatever")) as raw:
        for wording, text in TEXTS.items():
            for shape, made in SHAPES.items():
                for spoken in (text, text.replace("'", "\u2019")):
                    said.append(json.dumps(made(spoken)).encode())
                    async with asking(bot_of(simulator, host=raw.url)) as kore:
                        try:
                            await refused(kore)
                        except BaseException as error:
                            raise AssertionError((wording, shape, said[-1])) from error
            said.append(f" {text}\n".encode())
            async with asking(bot_of(simulator, host=raw.url)) as kore:
                await refused(kore)


@pytest.mark.parametrize(
    "body",
    [
        {"msg": f"no such session: {TEXTS['older']}"},
        {"error": f"{TEXTS['hourly']} is no user"},
        {"errors": [{"msg": "Invalid file id", "value": TEXTS["per minute"]}]},
        {"errors": [{"code": 4002, "session": TEXTS["older"]}], "userId": TEXTS["older"]},
        {"status": TEXTS["older"]},
        {"recording": [{"fileName": TEXTS["older"], "fileUrl": "https://a.example/"}]},
        [TEXTS["older"]],
    ],
)
async def test_what_only_quotes_one_is_none(simulator: Simulator, body: Any) -> None:
    """Whoever chooses the ID that is asked for must not choose what a refusal means."""
    async with (
        raw_server(lambda _: http_answer(json.dumps(body).encode(), "400 Bad Request")) as raw,
        asking(bot_of(simulator, host=raw.url)) as kore,
    ):
        with pytest.raises(KoreError) as caught:
            await kore.ask()
        assert not isinstance(caught.value, RateLimited)
