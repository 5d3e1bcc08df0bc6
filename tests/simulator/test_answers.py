"""What the API answers, ask by ask."""

from __future__ import annotations

import hashlib
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from archiver.simulator import platform
from archiver.simulator.answers import StatusAnswer
from archiver.simulator.script import SessionScript
from archiver.simulator.sessions import Timeline
from tests.simulator.conftest import SESSION, Client


async def statuses(client: Client, asks: int) -> list[str]:
    return [(await client.ask()).json["status"] for _ in range(asks)]


async def test_success_lists_every_recording_with_a_fresh_url(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "recordings": [{"file_name": "../a\u0000.wav"}, {}]})
    first, second = [(await client.ask()).json for _ in range(2)]
    assert first["status"] == "success"
    assert [entry.keys() for entry in first["recording"]] == [{"fileName", "fileUrl"}] * 2
    assert first["recording"][0]["fileName"] == "../a\u0000.wav"
    assert re.fullmatch(r"[0-9a-f]{32}-merged\.wav", first["recording"][1]["fileName"])
    assert first["recording"][0]["fileUrl"] != second["recording"][0]["fileUrl"]


async def test_a_step_lasts_for_its_asks_and_the_last_for_ever(client: Client) -> None:
    steps = [{"status": "call_in_progress", "times": 2}, {"status": "media_in_progress"}, {"status": "failed", "times": 1}]
    client.sim.script({"session_id": SESSION, "answers": steps})
    expected = ["call_in_progress", "call_in_progress", "media_in_progress", "failed", "failed"]
    assert await statuses(client, 5) == expected
    assert client.sim.report()["api"]["by_status"] == {"call_in_progress": 2, "media_in_progress": 1, "failed": 2}


def test_a_step_lasts_for_its_seconds_since_it_was_first_asked() -> None:
    now = 100.0
    steps = [
        StatusAnswer(status="call_in_progress", times=1),
        StatusAnswer(status="media_in_progress", for_seconds=3),
        StatusAnswer(status="success"),
    ]
    timeline = Timeline(steps, clock=lambda: now)

    def ask() -> Any:
        return timeline.ask()

    assert ask().status == "call_in_progress"
    now = 200.0
    assert ask().status == "media_in_progress"
    now = 202.9
    assert ask().status == "media_in_progress"
    now = 203.0
    assert ask().status == "success"
    now = 900.0
    assert ask().status == "success"


def test_what_comes_before_the_steps_lasts_until_its_instant_and_uses_up_no_step() -> None:
    now = 10.0
    steps = [StatusAnswer(status="failed", times=1), StatusAnswer(status="success")]
    until = [(12.0, "call_in_progress"), (None, "never"), (15.0, "media_in_progress")]
    timeline = Timeline(steps, clock=lambda: now, until=until)

    def ask(at: float) -> Any:
        nonlocal now
        now = at
        answer = timeline.ask()
        assert isinstance(answer, StatusAnswer)
        return answer.status

    asks = [10.0, 11.9, 12.0, 14.9, 15.0, 15.0]
    assert [ask(at) for at in asks] == [*["call_in_progress"] * 2, *["media_in_progress"] * 2, "failed", "success"]


async def test_a_call_scripted_by_the_clock_ends_and_then_its_media_are_ready(client: Client) -> None:
    client.sim.settings.account_rate_limits = ()
    began = time.monotonic()
    client.sim.script({"session_id": SESSION, "call_ends_at": 1, "ready_at": 2})
    seen: list[tuple[float, str]] = []
    while not seen or seen[-1][1] != "success":
        seen += [(time.monotonic() - began, status) for status in await statuses(client, 1)]
        assert seen[-1][0] < 10
    assert list(dict.fromkeys(status for _, status in seen)) == ["call_in_progress", "media_in_progress", "success"]
    assert max(at for at, status in seen if status == "success") >= 2
    assert min(at for at, status in seen if status == "media_in_progress") >= 1


async def test_scripts_given_together_count_from_the_same_instant(client: Client) -> None:
    client.sim.script_all([{"session_id": SESSION, "ready_at": 3600}, {"session_id": "other", "call_ends_at": 3600}])
    assert (await client.ask()).json == {"status": "media_in_progress"}
    assert (await client.ask("other")).json == {"status": "call_in_progress"}
    client.sim.script({"session_id": SESSION, "ready_at": 0, "call_ends_at": 0})
    assert await statuses(client, 1) == ["success"]


async def test_media_cannot_be_ready_before_the_call_ends(client: Client) -> None:
    with pytest.raises(ValueError, match=r"'x'.*ready_at \(1\) is before call_ends_at \(2\)"):
        client.sim.script({"session_id": "x", "call_ends_at": 2, "ready_at": 1})


async def test_one_script_can_stand_for_every_session_without_one(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"status": "failed"}]})
    client.sim.script({"session_id": "*", "answers": [{"status": "media_in_progress"}, {"status": "success"}]})
    assert (await client.ask()).json == {"status": "failed"}
    for session_id in ("a", "b"):
        assert (await client.ask(session_id)).json == {"status": "media_in_progress"}
        (url,) = await client.urls(session_id)
        body = (await client.fetch(url)).body
        assert [hashlib.sha256(body).hexdigest()] == client.sim.sha256_of(session_id)
    assert client.sim.sha256_of("a") != client.sim.sha256_of("b")
    assert client.sim.report()["api"]["unknown_sessions"] == 0


async def test_sessions_without_a_script_are_remembered_in_bounded_number(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "STAND_INS", 2)
    client.sim.script({"session_id": "*", "answers": [{"status": "media_in_progress"}, {"status": "success"}]})
    for session_id in ("a", "b", "a", "c", "d"):
        await client.ask(session_id)
    client.sim.script({"session_id": "c", "answers": [{"status": "failed"}]})
    seen = [(await client.ask(session_id)).json["status"] for session_id in ("d", "a", "e", "c")]
    assert seen == ["success", "media_in_progress", "media_in_progress", "failed"]
    with pytest.raises(KeyError):
        client.sim.sha256_of("b")


async def test_another_script_for_every_other_session_begins_anew(client: Client) -> None:
    client.sim.script({"session_id": "*", "answers": [{"status": "media_in_progress"}]})
    assert (await client.ask("a")).json == {"status": "media_in_progress"}
    client.sim.script({"session_id": "*", "answers": [{"status": "failed"}]})
    assert (await client.ask("a")).json == {"status": "failed"}


async def test_waiting_in_seconds_ends(client: Client) -> None:
    client.sim.script(
        {"session_id": SESSION, "answers": [{"status": "media_in_progress", "for_seconds": 0}, {"status": "success"}]}
    )
    assert await statuses(client, 2) == ["media_in_progress", "success"]


@pytest.mark.parametrize("status", ["media_unavailable", "failed", "never_heard_of"])
async def test_any_status_can_be_answered_and_comes_without_recordings(client: Client, status: str) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"status": status}]})
    assert (await client.ask()).json == {"status": status}


@pytest.mark.parametrize(("recordings", "answer"), [([], {"status": "success", "recording": []}), (None, {"status": "success"})])
async def test_success_can_come_without_recordings(client: Client, recordings: Any, answer: Any) -> None:
    client.sim.script({"session_id": SESSION, "recordings": recordings})
    assert (await client.ask()).json == answer


async def test_an_unknown_session_has_no_media_and_is_counted(client: Client) -> None:
    assert (await client.ask("65e7133a3242653c58d7ffff")).json == {"status": "media_unavailable"}
    assert client.sim.report()["api"]["unknown_sessions"] == 1


async def test_a_session_id_must_be_given(client: Client) -> None:
    assert (await client.ask("")).status == 412


async def test_an_http_error_comes_as_scripted(client: Client) -> None:
    error = {"http_status": 503, "body": "<html>bad gateway</html>", "content_type": "text/html"}
    client.sim.script({"session_id": SESSION, "answers": [error, {"status": "success"}]})
    answer = await client.ask()
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (503, b"<html>bad gateway</html>", "text/html")
    assert (await client.ask()).json["status"] == "success"
    assert client.sim.report()["api"]["by_status"] == {"http_503": 1, "success": 1}


async def test_a_raw_answer_comes_verbatim(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"raw": "not json", "content_type": "application/json"}]})
    answer = await client.ask()
    assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, b"not json", "application/json")


async def test_a_reset_ends_the_connection_before_any_answer(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "reset"}, {"status": "success"}]})
    with pytest.raises(ConnectionResetError):
        await client.ask_raw()
    assert (await client.ask()).json["status"] == "success"
    assert client.sim.report()["api"]["by_status"] == {"reset": 1, "success": 1}


async def test_a_hung_answer_never_comes(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "hang"}]})
    with pytest.raises(TimeoutError):
        async with client.http.get(
            f"{client.sim.api_url}/api/public/bot/{client.sim.bot_id}/v2/recordings?sessionId={SESSION}",
            headers={"auth": client.token()},
            timeout=aiohttp.ClientTimeout(total=1),
        ):
            pass
    report = await client.sim.wait_for(lambda report: report["api"]["calls"] == 1)
    assert report["api"]["by_status"] == {"hang": 1}


async def test_a_scripted_rate_limit_is_worded_in_turn(client: Client) -> None:
    steps = [
        {"fault": "rate_limited", "retry_after": 0.4},
        {"fault": "rate_limited", "http_status": 400},
        {"status": "success"},
    ]
    client.sim.script({"session_id": SESSION, "answers": steps})
    first, second, third = [await client.ask() for _ in range(3)]
    assert (first.status, first.headers.get("Retry-After")) == (429, "1")
    assert first.message == "Rate limit for this API has been reached. Please try again later"
    assert (second.status, second.headers.get("Retry-After")) == (400, None)
    assert second.message == "You've exceeded the per-minute rate limit. Please wait for sometime before retrying."
    assert third.json["status"] == "success"
    api = client.sim.report()["api"]
    assert (api["rate_limited"], api["max_in_window"]["minute"]) == (2, 1)


@pytest.mark.parametrize(("fields", "status"), [({}, 401), ({"http_status": 403}, 403)])
async def test_a_scripted_refusal_of_credentials(client: Client, fields: dict[str, Any], status: int) -> None:
    client.sim.script({"session_id": SESSION, "answers": [{"fault": "unauthorized"} | fields, {"status": "success"}]})
    assert [(await client.ask()).status for _ in range(2)] == [status, 200]
    assert client.sim.report()["api"]["unauthorized"] == 1


async def test_a_url_can_be_given_verbatim(client: Client) -> None:
    client.sim.script({"session_id": SESSION, "recordings": [{"url": "file:///etc/passwd"}, {"url": ""}]})
    assert await client.urls() == ["file:///etc/passwd", ""]


async def test_the_last_user_id_of_a_session_is_reported(client: Client) -> None:
    url = f"{client.sim.api_url}/api/public/bot/{client.sim.bot_id}/v2/recordings?sessionId={SESSION}&userId=u-1"
    async with client.http.get(url, headers={"auth": client.token()}) as response:
        assert response.status == 200
    assert client.sim.report()["api"]["user_ids"] == {SESSION: "u-1"}


async def test_the_date_header_shows_the_skew_of_the_clock(client: Client) -> None:
    for skew in (0.0, 3600.0):
        client.sim.settings.clock_skew = skew
        date = parsedate_to_datetime((await client.ask()).headers["Date"])
        assert abs(date.timestamp() - time.time() - skew) < 5


async def test_a_new_script_begins_anew(client: Client) -> None:
    script = {"session_id": SESSION, "answers": [{"status": "call_in_progress"}, {"status": "failed"}]}
    client.sim.script(script)
    assert await statuses(client, 2) == ["call_in_progress", "failed"]
    client.sim.script(SessionScript.from_json(script))
    assert await statuses(client, 1) == ["call_in_progress"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ({}, "session_id: Field required"),
        ({"session_id": "a", "answer": []}, "answer: Extra inputs"),
        ({"session_id": "a", "answers": []}, "answers: List should have at least 1 item"),
        ({"session_id": "a", "answers": [{"statu": "x"}]}, r"answers\[0\]: an answer is an object with 'status'"),
        ({"session_id": "a", "answers": [{"fault": "explode"}]}, r"answers\[0\]: an answer is an object with 'status'"),
        ({"session_id": "a", "answers": [{"status": "x", "times": 0}]}, r"answers\[0\].times: Input should be greater"),
        ({"session_id": "a", "answers": [{"status": "x", "times": 1, "for_seconds": 1}]}, "exclude each other"),
        ({"session_id": "a", "recordings": [{"audio": {}}]}, r"recordings\[0\].audio: .* exactly one of"),
        ({"session_id": "a", "recordings": [{"audio": {"seconds": 1, "raw": ""}}]}, "exactly one of"),
        ({"session_id": "a", "recordings": [{"audio": {"raw": ""}, "riff_sizes": "zero"}]}, "raw body"),
        ({"session_id": "a", "recordings": [{"faults": [{"kind": "truncate"}]}]}, r"faults\[0\].truncate.at: Field req"),
        ({"session_id": "a", "recordings": [{"content_type": "a\r\nb"}]}, "content_type"),
        ([], "JSON object, not list"),
    ],
)
def test_a_malformed_script_is_refused_by_the_name_of_its_key(script: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SessionScript.from_json(script)


def test_a_script_survives_its_json_form() -> None:
    script = SessionScript.from_json(
        {
            "session_id": "a",
            "answers": [{"fault": "reset", "times": 2}, {"raw": "x"}, {"status": "success"}],
            "recordings": [{"file_name": "\u0000", "audio": {"seconds": 1}, "faults": [{"kind": "empty", "times": None}]}],
            "note": "n",
            "expected": "failed",
        }
    )
    assert SessionScript.from_json(script.to_json()) == script


@pytest.mark.parametrize("answer", [{"status": "success"}, {"raw": "{}"}, {"http_status": 503}, {"fault": "rate_limited"}])
async def test_any_answer_can_have_headers(client: Client, answer: dict[str, Any]) -> None:
    headers = {"Content-Encoding": "UTF-8", "X-Long": "x" * 30_000}
    client.sim.script({"session_id": SESSION, "answers": [answer | {"headers": headers}, {"status": "failed"}]})
    head, _, body = (await client.ask_raw("Connection: close")).partition(b"\r\n\r\n")
    assert b"\r\nContent-Encoding: UTF-8\r\n" in head
    assert len(head) > 30_000
    assert body[:1] in b"{"
    assert (await client.ask()).json == {"status": "failed"}


async def test_a_header_that_would_end_its_line_is_refused(client: Client) -> None:
    for headers in ({"X-A": "a\r\nX-B: b"}, {"X-A: a\r\nX-B": "b"}):
        with pytest.raises(ValueError, match="headers"):
            client.sim.script({"session_id": SESSION, "answers": [{"status": "success", "headers": headers}]})
