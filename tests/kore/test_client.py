"""The recordings call: every answer that the platform may give, and what each costs."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import ssl
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog

from archiver.errors import ApiDefect, ApiUnreachable, CredentialsRejected, KoreError, RateLimited
from archiver.kore import answers as kore_answers
from archiver.kore.answers import KEPT_ANSWER, MAX_ANSWER, Answer, RemoteFile
from archiver.kore.client import LONG_ANSWER, UNKNOWN_BOT
from archiver.kore.clock import parse_date
from archiver.kore.exchange import Asked
from archiver.kore.inline import Inline
from archiver.kore.token import LIFETIME
from archiver.observe.redact import MASK
from archiver.outcome import Failed, classify
from archiver.runtime import retry as transient
from archiver.runtime.retry import TRIES
from archiver.session import MAX_SOURCE_NAME
from archiver.simulator.limits import GENERAL_MESSAGE, PER_MINUTE_MESSAGE
from archiver.simulator.platform import Simulator
from tests.kore.conftest import SESSION, SLOW_TEXT, KoreHarness, asking, beating, bot_of, dripping, http_answer, raw_server

SUCCESS = {"status": "success"}


def answers(simulator: Simulator, *steps: dict[str, Any], **more: Any) -> None:
    simulator.script({"session_id": SESSION, "answers": list(steps), **more})


def calls(simulator: Simulator) -> int:
    found: int = simulator.report()["api"]["calls"]
    return found


async def defect(kore: KoreHarness, reason: str = "api_answer_invalid") -> ApiDefect:
    with pytest.raises(ApiDefect) as caught:
        await kore.ask()
    assert caught.value.reason == reason
    assert len(kore.asked) == kore.draws == 1, "a defect is not repeated at once"
    return caught.value


# --- answers


async def test_a_success_lists_its_files_in_order_with_their_urls_as_given(simulator: Simulator, kore: KoreHarness) -> None:
    urls = ["https://media.kore.ai/a?s=$$+%2B%7e", "https://media.kore.ai/b"]
    files = [{"file_name": name, "url": url} for name, url in zip(("a.wav", "../b"), urls, strict=True)]
    answers(simulator, SUCCESS, recordings=files)
    answer = await kore.ask()
    assert answer.status == "success"
    assert answer.files == (RemoteFile(1, "a.wav", urls[0]), RemoteFile(2, "../b", urls[1]))
    for shown in (repr(answer), answer.raw, repr(kore.asked)):
        assert "%2B" not in shown
    assert MASK in answer.raw


@pytest.mark.parametrize("status", ["call_in_progress", "media_in_progress", "media_unavailable", "failed", "something_new", ""])
async def test_every_other_status_is_passed_on(simulator: Simulator, kore: KoreHarness, status: str) -> None:
    answers(simulator, {"status": status})
    answer = await kore.ask()
    assert (answer.status, answer.files, answer.http_status) == (status, (), 200)
    assert json.loads(answer.raw) == {"status": status}
    (asked,) = kore.asked
    assert (asked.http_status, asked.status, asked.raw) == (200, status, answer.raw)
    assert asked.date is not None


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "Service unavailable",
        "<html></html>",
        "[]",
        '[{"status": "success"}]',
        "null",
        '"success"',
        "{}",
        '{"status": null}',
        '{"status": 7}',
        '{"status": ["success"]}',
        '{"recording": ["data:audio/wav;base64,UklGRg=="]}',
        '{"status": "success"}',
        '{"status": "success", "recording": null}',
        '{"status": "success", "recording": {"fileName": "a"}}',
        '{"status": "success", "recording": ["x"]}',
        '{"status": "success", "recording": [{}]}',
        '{"status": "success", "recording": [{"fileName": "a"}]}',
        '{"status": "success", "recording": [{"fileName": "a", "fileUrl": ""}]}',
        '{"status": "success", "recording": [{"fileName": "a", "fileUrl": 7}]}',
        '{"status": "success", "recording": [{"fileName": 7, "fileUrl": "https://x"}]}',
        '{"status": ' + "1" * 5000 + "}",
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
async def test_an_answer_that_no_page_of_the_vendor_allows_is_a_defect(simulator: Simulator, kore: KoreHarness, raw: str) -> None:
    answers(simulator, {"raw": raw})
    error = await defect(kore)
    assert error.facts["http_status"] == 200
    assert error.facts["answer"][:KEPT_ANSWER] == raw[:KEPT_ANSWER]


async def test_a_success_without_the_key_recording_is_a_defect(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, SUCCESS, recordings=None)
    await defect(kore)


async def test_a_success_with_no_file_is_a_defect_by_its_own_name(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, SUCCESS, recordings=[])
    await defect(kore, "api_empty_success")


async def test_a_file_without_a_name_is_a_file(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, {"raw": '{"status": "success", "recording": [{"fileUrl": "https://x/y"}]}'})
    assert (await kore.ask()).files == (RemoteFile(1, "", "https://x/y"),)


async def test_more_files_than_allowed_are_a_defect_with_their_number(simulator: Simulator) -> None:
    answers(simulator, SUCCESS, recordings=[{"url": "https://x/y"}] * 4)
    async with asking(bot_of(simulator), max_files=4) as kore:
        assert len((await kore.ask()).files) == 4
    async with asking(bot_of(simulator), max_files=3) as kore:
        error = await defect(kore, "too_many_files")
    assert error.facts["files"] == 4
    assert "max_files_per_session" in error.hint


async def test_names_that_are_slow_to_redact_stop_nobody_else(simulator: Simulator) -> None:
    """A hostile answer of four megabytes stopped the worker for twenty seconds, each time that it came."""
    entries = [{"fileName": f"{n}{SLOW_TEXT * 300}", "fileUrl": "https://x/"} for n in range(200)]
    reply = http_answer(json.dumps({"status": "success", "recording": entries}).encode())
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore, beating(1.0):
        answer = await kore.ask()
    assert len(answer.files) == 200
    assert all(len(file.name) <= MAX_SOURCE_NAME for file in answer.files)


@pytest.mark.parametrize("body", [b"\xff\xfe\xfa", b'{"status": "\xff"}', b"\0" * 100])
async def test_an_answer_that_is_no_text_is_a_defect(simulator: Simulator, body: bytes) -> None:
    async with raw_server(lambda head: http_answer(body)) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        await defect(kore)


async def test_an_endless_answer_is_read_to_a_bound(simulator: Simulator) -> None:
    sent = 0
    hung_up = asyncio.Event()

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
                sent += 65536
        except ConnectionError:
            hung_up.set()
        finally:
            writer.close()

    server = await asyncio.start_server(pour, "127.0.0.1", 0)
    async with server, asking(bot_of(simulator, host=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")) as kore:
        error = await defect(kore)
        await asyncio.wait_for(hung_up.wait(), 10)
    assert "more than" in error.message
    assert sent < 8 * MAX_ANSWER, "what the sockets buffer comes on top"
    assert len(error.facts["answer"]) <= KEPT_ANSWER + 3


@pytest.mark.parametrize("api", ["v1", "v2"])
@pytest.mark.parametrize("encoding", ["gzip", "identity, br"])
async def test_an_answer_that_was_encoded_unasked_is_not_unpacked(simulator: Simulator, api: str, encoding: str) -> None:
    """Silence compresses by a thousand: 0.8 MB of an answer would be 600 MB in the store."""
    kept: list[Inline] = []

    async def take(recording: Inline) -> None:
        kept.append(recording)

    answer = (
        b'{"status": "success", "recording": ["data:audio/wav;base64,' + base64.b64encode(b"RIFF" + bytes(3_000_000)) + b'"]}'
    )
    reply = http_answer(gzip.compress(answer), Content_Encoding=encoding)
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url, api=api)) as kore:
        with pytest.raises(ApiDefect) as caught:
            await kore.ask(take=take)
    assert caught.value.reason == "api_encoded"
    assert caught.value.facts["encodings"] == [encoding]
    assert set(caught.value.facts) == {"http_status", "encodings"}, "nothing of its body was read"
    assert not kept
    assert len(kore.asked) == kore.draws == 1
    assert "\r\naccept-encoding: identity\r\n" in raw.heads[0].lower()


async def test_identity_is_no_encoding(simulator: Simulator) -> None:
    reply = http_answer(b'{"status": "failed"}', Content_Encoding="Identity")
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        assert (await kore.ask()).status == "failed"


# --- what is asked


async def test_the_user_is_sent_when_there_is_one(simulator: Simulator, kore: KoreHarness) -> None:
    await kore.ask("one", user_id="u-1/ä&x=y")
    await kore.ask("two")
    await kore.ask("three", user_id="")
    assert simulator.report()["api"]["user_ids"] == {"one": "u-1/ä&x=y"}


async def test_the_token_goes_in_the_header_auth_and_nowhere_else(simulator: Simulator) -> None:
    reply = http_answer(b'{"status": "failed"}')
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        await kore.ask("a:b.c-d_e")
        token = kore.client.signer.token()
    (head,) = raw.heads
    assert head.count(token) == 1
    assert f"\r\nauth: {token}\r\n" in head
    assert "authorization" not in head.lower()
    assert "cookie" not in head.lower()
    assert raw.targets == [f"/api/public/bot/{simulator.bot_id}/v2/recordings?sessionId=a%3Ab.c-d_e"]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_not_followed(simulator: Simulator, status: str) -> None:
    async with raw_server(lambda head: http_answer()) as elsewhere:
        reply = http_answer(b"", status, Location=f"{elsewhere.url}/api")
        async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
            await defect(kore, f"api_http_{status[:3]}")
    assert elsewhere.heads == []


# --- rate limits


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "slow down"),
        (429, GENERAL_MESSAGE),
        (400, GENERAL_MESSAGE),
        (400, PER_MINUTE_MESSAGE.format(count=60)),
        (400, "You’ve exceeded the per-hour rate limit of 1800 requests."),
        (401, GENERAL_MESSAGE),
        (403, GENERAL_MESSAGE.upper()),
        (403, PER_MINUTE_MESSAGE.format(count=60)),
        (503, GENERAL_MESSAGE),
        (200, GENERAL_MESSAGE),
        (400, "You've exceeded the per-minute rate limit. Please wait for sometime before retrying."),
        (400, "You've exceeded the hourly rate limit. Please wait for sometime before retrying."),
        (400, "You've exceeded the hourly rate limit. Wait for sometime before retrying."),
    ],
)
async def test_a_rate_limit_is_known_by_status_or_message_and_not_repeated(
    simulator: Simulator, kore: KoreHarness, status: int, message: str
) -> None:
    answers(simulator, {"http_status": status, "body": json.dumps({"errors": [{"msg": message}]})})
    with pytest.raises(RateLimited) as caught:
        await kore.ask()
    assert caught.value.retry_after is None
    assert kore.draws == calls(simulator) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"errors": [{"msg": f"no such user: {GENERAL_MESSAGE}"}]},
        {"errors": [{"msg": f"{GENERAL_MESSAGE} is no session"}]},
        {"errors": [{"msg": "invalid", "value": GENERAL_MESSAGE}], "userId": GENERAL_MESSAGE},
        {"errors": [{"msg": [GENERAL_MESSAGE]}]},
        {"error": {"value": GENERAL_MESSAGE, "msg": f"{GENERAL_MESSAGE}?"}},
        {"message": {"text": GENERAL_MESSAGE}},
        [GENERAL_MESSAGE],
    ],
)
async def test_an_echo_of_the_rate_limits_message_is_no_refusal(simulator: Simulator, kore: KoreHarness, body: Any) -> None:
    answers(simulator, {"http_status": 400, "body": json.dumps(body)})
    await defect(kore, "api_http_400")


async def test_a_gateway_may_say_it_in_plain_text(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, {"http_status": 400, "body": f"{GENERAL_MESSAGE}.\n"})
    with pytest.raises(RateLimited):
        await kore.ask()


async def test_an_echo_of_encryption_is_no_demand_for_it(simulator: Simulator, kore: KoreHarness) -> None:
    body = {"errors": [{"msg": "Permission denied. Scope is incorrect!"}], "sessionId": "jwe-encrypted"}
    answers(simulator, {"http_status": 403, "body": json.dumps(body)})
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    assert "enforces" not in caught.value.facts


async def test_a_success_that_mentions_a_rate_limit_is_a_success(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, SUCCESS, recordings=[{"file_name": GENERAL_MESSAGE, "url": "https://x/y"}])
    assert (await kore.ask()).status == "success"


NOW = datetime(2024, 5, 3, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0", 0),
        ("99999999", 86400),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=90), usegmt=True), 86400),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
    ],
)
async def test_retry_after_is_held_against_the_servers_own_clock(
    simulator: Simulator, header: str, seconds: float | None
) -> None:
    reply = http_answer(b"", "429 Too Many Requests", Retry_After=header, Date=format_datetime(NOW, usegmt=True))
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        with pytest.raises(RateLimited) as caught:
            await kore.ask()
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))
    assert kore.asked[0].date == NOW


@pytest.mark.parametrize(
    "text", ["", "x", "Mon, 01 Jan 99999 00:00:00 GMT", "Mon, 01 Jan 2024 99:00:00 GMT", "1 Jan 2024 00:00:00 +99999999999", "\0"]
)
def test_a_date_that_is_none_is_no_date(text: str) -> None:
    assert parse_date(text) is None


# --- credentials


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_asked_once_more_with_a_fresh_token(simulator: Simulator, kore: KoreHarness, status: int) -> None:
    answers(simulator, {"fault": "unauthorized", "http_status": status}, {"status": "media_unavailable"})
    before = kore.client.signer.token()
    assert (await kore.ask()).status == "media_unavailable"
    assert kore.client.signer.token() != before
    assert kore.draws == calls(simulator) == 2


async def test_a_fresh_token_is_not_shown_again_after_a_fault(simulator: Simulator) -> None:
    """An app may take each token once: after the fault the same one would be refused, for another call."""
    shown: set[str] = set()

    def reply(head: str) -> bytes:
        token = head.partition("\r\nauth: ")[2].partition("\r\n")[0]
        if token == first or token in shown:
            return http_answer(b"{}", "401 Unauthorized")
        shown.add(token)
        return http_answer(b"", "503 Service Unavailable") if len(shown) == 1 else http_answer(b'{"status": "failed"}')

    async with raw_server(reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        first = kore.client.signer.token()
        assert (await kore.ask()).status == "failed"
    assert [asked.http_status for asked in kore.asked] == [401, 503, 200]
    assert kore.draws == 3


@pytest.mark.parametrize("status", [401, 403])
async def test_a_second_refusal_is_final(simulator: Simulator, kore: KoreHarness, status: int) -> None:
    answers(simulator, {"fault": "unauthorized", "http_status": status})
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    assert caught.value.facts["http_status"] == status
    assert "resume" in caught.value.hint
    assert kore.draws == calls(simulator) == len(kore.asked) == 2
    assert not kore.client.signer.single_use


@pytest.mark.parametrize(
    ("said", "names", "not_named"),
    [
        ("Invalid JWT token", ("bots.bot.client_id, client_secret and algorithm",), ("bot_id", "publish")),
        ("Invalid SDK credentials", ("bots.bot.bot_id", "bots.bot.client_id"), ("client_secret", "publish")),
        ("Permission denied. Scope is incorrect!", ("'SmartAssist Recordings'", "publish the app"), ("client_secret", "bot_id")),
        ("This app was suspended", ("client_secret", "bot_id", "'SmartAssist Recordings'", "publish the app"), ()),
    ],
)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_names_its_cause_by_its_message_alone(
    simulator: Simulator,
    kore: KoreHarness,
    status: int,
    said: str,
    names: tuple[str, ...],
    not_named: tuple[str, ...],
) -> None:
    """One status and one code stand for three causes."""
    answers(simulator, {"http_status": status, "body": json.dumps({"errors": [{"msg": said, "code": 4002}]})})
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    error = caught.value
    assert said in error.message
    assert error.facts["said"] == said
    assert all(name in error.hint for name in names), error.hint
    assert not any(name in error.hint for name in not_named), error.hint
    assert "archiver resume" in error.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html>denied</html>", ""),
        ('{"errors":[{"msg":"a\\nb\\u0007c","code":1}]}', "a b\\x07c"),
        ('{"errors":[{"msg":"client_secret=hunter2hunter2"}]}', "client_secret=[redacted]"),
        (json.dumps({"message": "no \n" * 1000}), ("no " * 67)[:200]),
        (json.dumps({"error": {"message": "no such app"}}), "no such app"),
    ],
)
async def test_what_a_refusal_says_is_shown_bounded_and_harmless(
    simulator: Simulator, kore: KoreHarness, body: str, said: str
) -> None:
    answers(simulator, {"http_status": 401, "body": body})
    with pytest.raises(CredentialsRejected) as caught:
        await kore.ask()
    assert caught.value.facts["said"] == said


async def test_a_request_that_is_called_invalid_names_that(simulator: Simulator, kore: KoreHarness) -> None:
    body = {"errors": [{"msg": "Validation errors/ Invalid arguments", "code": 412}]}
    answers(simulator, {"http_status": 412, "body": json.dumps(body)})
    error = await defect(kore, "api_http_412")
    assert "Validation errors/ Invalid arguments" in error.message
    assert "user ID" in error.hint
    assert isinstance(classify(error), Failed)


NOT_FOUND = b'{"errors":[{"msg":"Bot not found","code":404}]}'


@pytest.mark.parametrize(
    ("ours", "of_no_bot", "known"),
    [
        (NOT_FOUND, NOT_FOUND, False),
        (b'{"errors":[{"msg":"no bot st-1"}]}', b'{"errors":[{"msg":"no bot %s"}]}' % UNKNOWN_BOT.encode(), False),
        (b"", b"", False),
        (b'{"errors":[{"msg":"Session not found"}]}', NOT_FOUND, True),
        (NOT_FOUND, b"401", True),
    ],
    ids=["the same", "the same but for the ID", "nothing", "another", "a refusal"],
)
async def test_a_404_is_the_bots_if_a_bot_that_is_not_there_gets_the_same(
    simulator: Simulator, ours: bytes, of_no_bot: bytes, known: bool
) -> None:
    def reply(head: str) -> bytes:
        if UNKNOWN_BOT not in head:
            return http_answer(ours, "404 Not Found")
        return http_answer(b"", "401 Unauthorized") if of_no_bot == b"401" else http_answer(of_no_bot, "404 Not Found")

    async with raw_server(reply) as raw, asking(bot_of(simulator, host=raw.url, bot_id="st-1")) as kore:
        if known:
            assert await kore.client.probe(draw=kore._draw) == (404, "")
        else:
            with pytest.raises(CredentialsRejected) as caught:
                await kore.client.probe(draw=kore._draw)
            assert "bots.bot.bot_id" in caught.value.hint
            assert "st-1" in caught.value.message


async def test_a_rate_limit_after_a_refusal_is_a_rate_limit(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, {"fault": "unauthorized"}, {"fault": "rate_limited", "http_status": 403})
    with pytest.raises(RateLimited):
        await kore.ask()


# --- faults


@pytest.mark.parametrize("fault", [{"fault": "reset"}, {"http_status": 500}, {"http_status": 503, "body": "<html>"}])
async def test_a_fault_that_passes_is_repeated_and_every_try_is_drawn(
    simulator: Simulator, kore: KoreHarness, fault: dict[str, Any]
) -> None:
    await kore.ask("warm up: the connection that breaks is one that was used before")
    answers(simulator, fault | {"times": TRIES - 1}, {"status": "failed"})
    assert (await kore.ask()).status == "failed"
    assert kore.draws == calls(simulator) == len(kore.asked) == 1 + TRIES
    assert len(kore.retries) == TRIES - 1


@pytest.mark.parametrize(
    ("fault", "reason"), [({"fault": "reset"}, "api_unreachable"), ({"http_status": 502, "body": "bad"}, "api_http_502")]
)
async def test_a_fault_that_lasts_is_given_up_after_three_tries(
    simulator: Simulator, kore: KoreHarness, fault: dict[str, Any], reason: str
) -> None:
    answers(simulator, fault)
    with pytest.raises(ApiUnreachable) as caught:
        await kore.ask()
    assert caught.value.reason == reason
    assert kore.draws == calls(simulator) == len(kore.asked) == TRIES


async def test_a_call_that_was_drawn_already_is_not_drawn_again_but_its_repetition_is(
    simulator: Simulator, kore: KoreHarness
) -> None:
    answers(simulator, {"fault": "reset"}, {"status": "failed"})
    await kore.ask(drawn=True)
    assert (kore.draws, calls(simulator)) == (1, 2)


async def test_a_budget_that_is_spent_ends_the_repetition(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, {"fault": "reset"})
    spent = RateLimited("spent", retry_after=timedelta(seconds=40))

    async def draw() -> None:
        raise spent

    with pytest.raises(RateLimited) as caught:
        await kore.ask(draw=draw, drawn=True)
    assert caught.value is spent
    assert calls(simulator) == 1


async def test_an_answer_that_never_comes_is_given_up(simulator: Simulator) -> None:
    answers(simulator, {"fault": "hang"})
    async with asking(bot_of(simulator), stall=0.5) as kore:
        with pytest.raises(ApiUnreachable) as caught:
            await kore.ask()
    assert "Timeout" in caught.value.facts["error"]
    assert kore.asked[0] == Asked(None, None, kore.asked[0].raw)
    assert kore.draws == calls(simulator) == TRIES


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 10_000 + b"\r\n",
    ],
    ids=["nothing", "short", "bad chunk", "not HTTP", "endless header", "endless headers"],
)
async def test_an_answer_that_is_no_http_is_a_fault(simulator: Simulator, reply: bytes) -> None:
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        with pytest.raises(ApiUnreachable):
            await kore.ask(user_id="u-1")
    assert kore.draws == len(raw.heads) == TRIES


async def test_what_cannot_be_read_as_http_is_named_so(simulator: Simulator) -> None:
    """And not taken for a fault of the network."""
    async with (
        raw_server(lambda head: b"SSH-2.0-OpenSSH_9\r\n\r\n") as raw,
        asking(bot_of(simulator, host=raw.url)) as kore,
    ):
        with pytest.raises(ApiUnreachable, match="that can be read as HTTP") as caught:
            await kore.ask()
    assert caught.value.reason == "api_answer_unreadable"


@pytest.mark.parametrize("encoding", ["aws-chunked", "UTF-8", "none", "identity, binary", ""])
async def test_neither_a_long_header_nor_a_name_that_encodes_nothing_is_in_the_way(simulator: Simulator, encoding: str) -> None:
    reply = http_answer(b'{"status": "media_in_progress"}', X_Long="x" * 30_000, Content_Encoding=encoding)
    async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        assert (await kore.ask()).status == "media_in_progress"


async def test_a_certificate_that_nobody_vouches_for_gets_no_token(
    simulator: Simulator, unknown_authority: ssl.SSLContext
) -> None:
    silent = raw_server(lambda head: http_answer(), tls=unknown_authority)
    async with silent as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        with pytest.raises(ApiUnreachable) as caught:
            await kore.ask()
    assert "Certificate" in caught.value.facts["error"]
    assert raw.heads == []


async def test_a_port_where_nobody_listens_is_a_fault(simulator: Simulator) -> None:
    async with raw_server(lambda head: b"") as raw:
        closed = raw.url
    async with asking(bot_of(simulator, host=closed)) as kore:
        with pytest.raises(ApiUnreachable, match="no answer from"):
            await kore.ask()


async def test_other_statuses_are_defects_by_their_number(simulator: Simulator, kore: KoreHarness) -> None:
    answers(simulator, {"http_status": 404, "body": "no"})
    error = await defect(kore, "api_http_404")
    assert error.facts["answer"] == "no"


# --- answers that drip: each byte would put off any timeout of a read

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INLINE = b'{"recording": ["data:audio/wav;base64,'


@pytest.mark.parametrize(
    ("first", "drip", "api"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x", "v2"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "v2"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b" ", "v2"),
        (CHUNKED + b"1;x=", b"x", "v2"),
        (CHUNKED + b"1\r\n{\r\n0\r\nX: ", b"x", "v2"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{", b" ", "v1"),
        (CHUNKED + b"%x\r\n" % len(INLINE) + INLINE + b"\r\n1;x=", b"x", "v1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + INLINE, b"AAAA", "v1"),
    ],
    ids=["header", "100-continue", "body", "chunk", "trailer", "v1 around", "v1 chunk", "v1 recording"],
)
async def test_an_answer_that_drips_is_given_up_like_one_that_never_comes(
    simulator: Simulator, first: bytes, drip: bytes, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "SECONDS", 0.0)

    async def take(recording: Inline) -> None:
        async for _ in recording:
            pass

    async with (
        dripping(first, drip) as url,
        asking(bot_of(simulator, host=url, api=api), stall_timeout="100ms") as kore,
    ):
        with pytest.raises(ApiUnreachable):
            await asyncio.wait_for(kore.ask(take=take), 10)


async def test_a_recording_in_an_answer_takes_the_time_that_it_needs(simulator: Simulator) -> None:
    """Longer than any other answer may: it comes at a pace."""
    audio, last, times = b"RIFF" * 300, b'"]}', 50
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(INLINE) + times * 1600 + len(last))
    came = bytearray()

    async def take(recording: Inline) -> None:
        async for piece in recording:
            came.extend(piece)

    began = asyncio.get_running_loop().time()
    async with (
        dripping(head + INLINE, base64.b64encode(audio), times=times, last=last) as url,
        asking(bot_of(simulator, host=url, api="v1"), stall_timeout="100ms", min_rate="1KiB") as kore,
    ):
        assert (await kore.ask(take=take)).listed == 1
    assert bytes(came) == audio * times
    assert asyncio.get_running_loop().time() - began > 5 * 0.1


async def test_an_answer_that_came_in_time_may_take_longer_to_understand(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    understand = kore_answers.understand

    def slowly(*args: Any) -> Answer:
        time.sleep(0.7)
        return understand(*args)

    monkeypatch.setattr(kore_answers, "understand", slowly)
    reply = http_answer(INLINE + b'UklGRg=="], "padding": "' + b"x" * LONG_ANSWER + b'"}')
    async with (
        raw_server(lambda head: reply) as raw,
        asking(bot_of(simulator, host=raw.url, api="v1"), stall_timeout="100ms") as kore,
    ):
        assert (await kore.ask()).listed == 1
    assert [asked.http_status for asked in kore.asked] == [200]


# --- secrets


async def test_no_secret_is_in_errors_or_evidence(simulator: Simulator) -> None:
    """Whatever the platform sends back: the token, the secret, signed URLs in JSON of any make."""

    def echo(head: str) -> bytes:
        token = head.partition("auth: ")[2].partition("\r\n")[0]
        url = "https:\\/\\/media.kore.ai\\/f.wav?e=1\\u0026s=SIGNATURE-OF-URL$$"
        text = f'{{"token": "{token}", "secret": "{simulator.client_secret}", "url": "{url}"}}'
        return http_answer(text.encode(), "401 Unauthorized")

    async with raw_server(echo) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
        with pytest.raises(KoreError) as caught:
            await kore.ask()
        token = kore.client.signer.token()
    error = caught.value
    told = repr((error, error.message, error.hint, error.facts, kore.asked))
    for secret in (token, token.split(".")[2], simulator.client_secret, "SIGNATURE"):
        assert secret not in told


async def test_a_secret_that_was_rotated_in_its_file_is_read_again(simulator: Simulator, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("an old secret that the platform no longer knows")
    simulator.script({"session_id": SESSION})
    async with asking(bot_of(simulator, client_secret="", client_secret_file=str(secret))) as kore:
        with pytest.raises(CredentialsRejected):
            await kore.ask()
        secret.write_text(simulator.client_secret)
        assert (await kore.ask()).status == "success"
        secret.unlink()
        assert (await kore.ask()).status == "success"


async def test_a_refusal_by_a_platform_whose_clock_differs_says_so(simulator: Simulator) -> None:
    simulator.settings.clock_skew = 3600
    simulator.reject_credentials = True
    async with asking(bot_of(simulator)) as kore:
        with pytest.raises(CredentialsRejected) as caught:
            await kore.ask()
    assert 3590 < caught.value.facts["clock_differs_seconds"] < 3610
    assert "clock" in caught.value.hint


@pytest.mark.parametrize("year", [1970, 2099])
async def test_tokens_do_not_follow_a_clock_that_is_years_away(simulator: Simulator, year: int) -> None:
    date = format_datetime(datetime(year, 1, 1, tzinfo=UTC), usegmt=True)
    reply = http_answer(b"no", "401 Unauthorized", Date=date)
    with structlog.testing.capture_logs() as logs:
        async with raw_server(lambda head: reply) as raw, asking(bot_of(simulator, host=raw.url)) as kore:
            with pytest.raises(CredentialsRejected) as caught:
                await kore.ask()
    for head in raw.heads:
        token = head.partition("auth: ")[2].partition("\r\n")[0]
        claims = jwt.decode(token, options={"verify_signature": False})
        assert claims["exp"] - datetime.now(UTC).timestamp() < 3600 + LIFETIME
        assert claims["exp"] > datetime.now(UTC).timestamp()
    assert len(raw.heads) == 2
    assert "an hour at most" in caught.value.hint
    [told] = [entry for entry in logs if entry["event"] == "clock_skew_ignored"]
    assert (told["log_level"], told["bot"]) == ("warning", "bot")
    assert "NTP" in told["hint"]


# --- version 1 and voicemail


def path_of(target: str) -> str:
    return target.partition("?")[0].replace("/bot/st-1/", "/bot/X/")


async def test_version_1_asks_by_its_own_paths_and_stays_with_the_one_that_answers(simulator: Simulator) -> None:
    def reply(head: str) -> bytes:
        if "/1.1/" in head:
            return http_answer(b"Cannot GET", "404 Not Found")
        return http_answer(b'{"recording": ["data:audio/wav;base64,UklGRg=="]}')

    async with raw_server(reply) as raw, asking(bot_of(simulator, host=raw.url, bot_id="st-1", api="v1")) as kore:
        answer = await kore.ask("a/b", user_id="u 1")
        assert (answer.status, answer.files, answer.listed) == ("success", (), 1)
        assert kore.draws == len(kore.asked) == 2
        await kore.ask(drawn=True)
    assert kore.draws == 2
    assert [path_of(target) for target in raw.targets] == [
        "/api/1.1/public/bot/X/recordings",
        *["/api/public/bot/X/recordings"] * 2,
    ]
    assert raw.targets[0].endswith("?sessionId=a%2Fb&userId=u%201")


async def test_version_1_does_not_stay_with_a_path_that_answers_with_a_page(simulator: Simulator) -> None:
    good = http_answer(b'{"recording": ["data:audio/wav;base64,UklGRg=="]}')
    replies = [http_answer(b"Cannot GET", "404 Not Found"), http_answer(b"<html>back soon</html>"), good]
    async with (
        raw_server(lambda head: replies.pop(0)) as raw,
        asking(bot_of(simulator, host=raw.url, api="v1")) as kore,
    ):
        with pytest.raises(ApiDefect):
            await kore.ask()
        assert (await kore.ask()).listed == 1
    assert ["/1.1/" in target for target in raw.targets] == [True, False, True]


async def test_version_1_refused_is_signed_afresh_like_any_other(simulator: Simulator) -> None:
    async with asking(bot_of(simulator, api="v1")) as kore:
        simulator.script({"session_id": SESSION, "answers": [{"fault": "unauthorized"}, {"status": "success"}]})
        assert (await kore.ask()).listed == 1
        assert kore.draws == 2


async def test_voicemail_is_asked_for_with_what_was_said(simulator: Simulator) -> None:
    body = b'{"status": "success", "voicemail_recording": [{"fileName": "v", "fileUrl": "https://x/y"}], "transcriptions": [1]}'
    async with (
        raw_server(lambda head: http_answer(body)) as raw,
        asking(bot_of(simulator, host=raw.url, bot_id="st-1")) as kore,
    ):
        answer = await kore.ask(kind="voicemail", user_id="u-1")
    assert raw.targets == [f"/api/public/bot/st-1/voicemail?sessionId={SESSION}&userId=u-1&transcription=true"]
    assert answer.files == (RemoteFile(1, "v", "https://x/y"),)
    assert (answer.transcriptions, answer.listed) == ([1], 1)
    assert json.loads(answer.raw)["transcriptions"] == "[left out]"


@pytest.mark.parametrize(
    "body",
    [
        '{"status": "success", "transcriptions": [{"text": "PIN 4711"}]}',
        '{"status": "failed", "transcriptions" : "PIN 4711"}',
        '{"transcriptions": [{"text": "PIN 4711"',
        '{"data": {"transcriptions": [{"text": "PIN 4711"}]}, "transcriptions": ["PIN 4711"]}',
        '[{"transcriptions": [{"text": "PIN 4711"}]}]',
    ],
)
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_what_was_said_is_no_evidence(simulator: Simulator, body: str, status: str) -> None:
    async with (
        raw_server(lambda head: http_answer(body.encode(), status)) as raw,
        asking(bot_of(simulator, host=raw.url)) as kore,
    ):
        error: object = None
        try:
            shown = repr(await kore.ask(kind="voicemail"))
        except ApiDefect as defect:
            error, shown = defect, repr(defect.facts)
    assert "4711" not in shown + repr(kore.asked) + str(error)
    assert "[left out]" in kore.asked[0].raw
