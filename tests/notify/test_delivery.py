"""How it is told: signed, until the receiver has it, whatever the receiver does, and marked where it comes again."""

from __future__ import annotations

import asyncio
import re
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from archiver.cli.notifying import tell_receiver
from archiver.config import Settings
from archiver.config.network import NetworkSettings
from archiver.config.notify import parse_key
from archiver.notify import notifier as notifiers
from archiver.notify import receiver as receivers
from archiver.notify import signing
from archiver.notify.notifier import FIRST_PAUSE, pause_after, send_test
from archiver.notify.receiver import NotDelivered
from archiver.observe.redact import MASK, remember_secret
from archiver.queue.notifications import COLLECT_PAUSE, GIVE_UP_AFTER, LONGEST_PAUSE
from archiver.runtime.network import DIRECT
from tests.notify.conftest import NotifyHarness
from tests.webhooks import KEY, SECRET, Mode, verify

DOCUMENT = Path(__file__).parents[2] / "docs/notifications.md"


def test_a_message_is_signed_as_the_standard_says() -> None:
    """Its own example, which every library of it has among its tests."""
    key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signing.headers_of(parse_key(key), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', 1)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_the_documented_receiver_verifies_what_arrives_and_refuses_the_rest(notify: NotifyHarness) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL) if "def verified" in block)
    space: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), space)
    await notify.write("m-1", n=1)
    await notify.told()
    (message,) = notify.server.received
    body = signing.body_of(await _as_sent(notify))
    assert space["verified"](SECRET, message.headers, body)["data"] == {"n": 1}
    for change in ({"webhook-timestamp": str(int(message.headers["webhook-timestamp"]) + 1)}, {"webhook-id": "msg_other"}):
        assert space["verified"](SECRET, message.headers | change, body) is None
    assert space["verified"](SECRET, message.headers, body + b" ") is None
    old = signing.headers_of(KEY, message.id, int(message.headers["webhook-timestamp"]) - 301, body, 1)
    assert space["verified"](SECRET, old, body) is None, "somebody kept it and sends it again"
    with pytest.raises(AssertionError, match="too old"):
        verify(old, body)


async def _as_sent(notify: NotifyHarness) -> Any:
    await notify.rows("UPDATE archive_notifications SET sent_at = NULL, attempts = 0, due_at = now()")
    await notify.make_due()
    message = await notify.notifications.take(uuid.uuid4())
    assert message is not None
    return message


async def test_a_receiver_that_is_down_gets_it_once_it_is_back(notify: NotifyHarness) -> None:
    port, notify.server.port = notify.server.port, 1
    await notify.write("m-1")
    await notify.write("m-2")
    with capture_logs() as lines:
        await notify.notifier().tell()
        await notify.notifier().tell()  # nor does the next process try it at once
    (line,) = lines
    assert (line["event"], line["attempt"], "cannot be reached" in line["error"]) == ("notification_failed", 1, True)
    standing = await notify.notifications.standing()
    assert (standing.waiting, standing.given_up, "cannot be reached" in (standing.last_error or "")) == (2, 0, True)
    attempts = [row["attempts"] for row in await notify.waiting()]
    assert attempts == [1, 0], "where one is refused the others are not tried at once"
    notify.server.port = port
    await notify.rows("UPDATE archive_notifier SET sending_until = '-infinity'")
    assert [one["attempt"] for one in await notify.told()] == [1], "the first has its pause"
    await notify.make_due()
    assert [one["attempt"] for one in await notify.told()] == [2]
    standing = await notify.notifications.standing()
    assert (standing.waiting, standing.last_sent_at is not None) == (0, True)


@pytest.mark.parametrize(
    ("mode", "status", "told"),
    [
        ("refuse", 500, "HTTP 500"), ("refuse", 410, "HTTP 410"), ("redirect", 307, "redirects are not followed"),
        ("broken", 0, "cannot be reached"), ("silent", 0, "did not answer"), ("headers", 0, ""),
    ],
)  # fmt: skip
async def test_a_receiver_that_does_not_accept_it_hears_of_it_again(
    notify: NotifyHarness, monkeypatch: pytest.MonkeyPatch, mode: Mode, status: int, told: str
) -> None:
    monkeypatch.setattr(receivers, "SECONDS", 0.3)
    notify.server.mode, notify.server.status = mode, status
    await notify.write("m-1")
    with capture_logs() as lines:
        await notify.told()
    assert [line["event"] for line in lines] == ["notification_failed"]
    assert told in lines[0]["error"]
    assert "script" not in str(lines)
    assert notify.server.sent_bytes < 64 << 20
    notify.server.mode, notify.server.status = "accept", 200
    await notify.make_due()
    await notify.told()
    first, second = notify.server.received
    assert (first.id, first.path, second.path) == (second.id, "/hook", "/hook")
    assert (first.attempt, second.attempt) == (1, 2)
    assert [one.headers["webhook-attempt"] for one in (first, second)] == ["1", "2"]


async def test_an_answer_without_end_is_not_read(notify: NotifyHarness) -> None:
    notify.server.mode = "endless"
    await notify.write("m-1")
    await notify.told()
    assert await notify.waiting() == []
    assert notify.server.sent_bytes < 32 << 20


async def test_what_was_sent_and_not_marked_comes_again_and_says_so(notify: NotifyHarness) -> None:
    """Whoever sent it was killed between the two."""
    notify.server.mode = "silent"
    await notify.write("m-1")
    killed = asyncio.create_task(notify.notifier().tell())
    await notify.server.messages(1)
    other = notify.notifier()
    assert await notify.told(other) == [], "somebody may still be at it"
    killed.cancel()
    await asyncio.wait([killed])
    notify.server.mode = "accept"
    await notify.make_due()
    await notify.told(other)
    first, second = notify.server.received
    assert (first.id, first.attempt, second.attempt) == (second.id, 1, 2)


async def test_a_sender_that_comes_back_late_changes_nothing(notify: NotifyHarness) -> None:
    await notify.write("m-1")
    late = await notify.notifications.take(uuid.uuid4())
    assert late is not None
    assert await notify.notifications.take(uuid.uuid4()) is None
    await notify.make_due()
    now = await notify.notifications.take(uuid.uuid4())
    assert now is not None
    assert not await notify.notifications.failed(late, "late", timedelta(days=9))
    assert not await notify.notifications.sent(late)
    assert await notify.notifications.sent(now)


async def test_one_that_the_receiver_refuses_for_good_is_given_up_and_keeps_nobody(notify: NotifyHarness) -> None:
    notify.server.mode, notify.server.status = "refuse", 422
    await notify.write("m-1")
    sender = notify.notifier()
    await notify.told(sender)
    await notify.write("m-2")
    notify.server.mode, notify.server.status = "accept", 200
    assert len(await notify.told(sender)) == 1, "the other one does not wait for it"
    notify.server.mode, notify.server.status = "refuse", 422
    await notify.rows("UPDATE archive_notifications SET first_tried_at = now() - $1::interval", GIVE_UP_AFTER)
    await notify.make_due()
    with capture_logs() as lines:
        await notify.told()
    assert [(line["event"], line["log_level"]) for line in lines] == [("notification_given_up", "error")]
    assert await notify.waiting() == []
    await notify.make_due()
    assert await notify.told() == []
    assert (await notify.notifications.standing()).given_up == 1


async def test_a_slow_receiver_gets_one_at_a_time(notify: NotifyHarness) -> None:
    for number in range(4):
        await notify.write(f"m-{number}")
    notify.server.mode = "silent"
    senders = [asyncio.create_task(notify.notifier().tell()) for _ in range(4)]
    await notify.server.messages(1)
    await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert sum(row["attempts"] for row in await notify.waiting()) == 1
    for sender in senders:
        sender.cancel()
    await asyncio.wait(senders)


async def test_at_the_end_of_a_night_one_that_is_refused_keeps_no_other(notify: NotifyHarness) -> None:
    notify.server.mode, notify.server.status = "refuse", 422
    for number in range(5):
        await notify.write(f"m-{number}")
    await notify.notifier().tell()
    await notify.notifier().tell()
    assert sum(row["attempts"] for row in await notify.waiting()) == 1
    await notify.notifier().tell(at_once=True)
    assert sum(row["attempts"] for row in await notify.waiting()) == 4


async def test_a_slow_receiver_keeps_nobody_from_looking(notify: NotifyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifiers, "ROUND_SECONDS", 0)
    for number in range(3):
        await notify.write(f"m-{number}")
    assert len(await notify.told()) == 1
    assert len(await notify.told()) == 1, "somebody else goes on with it"


async def test_no_failure_of_any_kind_ends_the_worker(notify: NotifyHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    await notify.write("m-1")
    monkeypatch.setattr(signing, "body_of", lambda _: 1 / 0)
    with capture_logs() as lines:
        await notify.notifier().tell()
    assert [line["event"] for line in lines] == ["notifications_stuck"]


async def test_a_clock_that_was_wrong_keeps_no_message(notify: NotifyHarness) -> None:
    await notify.write("m-1")
    await notify.write("m-2")
    await notify.rows("UPDATE archive_notifications SET due_at = now() + interval '400 days' WHERE matter = 'm-1'")
    await notify.rows("UPDATE archive_notifications SET due_at = now() + interval '5 hours' WHERE matter = 'm-2'")
    await notify.rows("UPDATE archive_notifier SET sending_until = now() + interval '400 days'")
    assert len(await notify.told()) == 1


async def test_a_matter_of_a_restored_database_has_the_id_that_it_had(notify: NotifyHarness) -> None:
    await notify.write("m-1")
    await notify.told()
    # As the dump of before knows it: nobody has tried to send it.
    await notify.rows("TRUNCATE archive_notifications RESTART IDENTITY")
    await notify.write("m-0")
    await notify.write("m-1")
    await notify.told()
    first, other, again = notify.server.received
    assert (again.id, other.id == first.id) == (first.id, False)


async def test_no_secret_is_in_a_message_or_a_line(notify: NotifyHarness) -> None:
    secret, token = "Fuchsia-7-lantern", f"T{uuid.uuid4().hex}"
    remember_secret(secret)
    await notify.write("m-1", note=f"see {secret}, https://user:pass-word-9@inner/?sig=abcdefgh and \x1b[31m")
    with capture_logs() as lines:
        notifier = notify.notifier(url=f"{notify.server.url}/{token}")
        await notifier.tell()
        notify.server.mode, notify.server.status = "refuse", 500
        await notify.write("m-2")
        await notifier.tell()
    first = notify.server.received[0]
    assert first.path == f"/hook/{token}"
    text = str(first.document)
    assert MASK in text
    for hidden in (secret, "pass-word-9", "abcdefgh"):
        assert hidden not in text
    assert lines
    for hidden in (token, SECRET, SECRET.removeprefix("whsec_")):
        assert hidden not in str(lines)


async def test_a_trial_arrives_or_says_why_not(notify: NotifyHarness) -> None:
    await send_test(notify.settings(), DIRECT)
    assert [one.document["type"] for one in notify.server.received] == ["test"]
    notify.server.mode, notify.server.status = "refuse", 403
    with pytest.raises(NotDelivered, match="HTTP 403"):
        await send_test(notify.settings(), DIRECT)


def test_pauses_grow_up_to_six_hours() -> None:
    pauses = [pause_after(attempt) for attempt in range(1, 60)]
    assert FIRST_PAUSE * 0.75 <= pauses[0] <= FIRST_PAUSE
    assert all(pause <= LONGEST_PAUSE for pause in pauses)
    assert pauses[-1] >= LONGEST_PAUSE * 0.75
    assert sum(pauses[:16], timedelta()) < GIVE_UP_AFTER, "some are left for what is down for a weekend"
    assert COLLECT_PAUSE <= FIRST_PAUSE


async def test_a_secret_that_is_gone_ends_no_night(notify: NotifyHarness, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    settings = Settings.model_construct(notify=notify.settings(secret="", secret_file=str(gone)), network=NetworkSettings())
    with capture_logs() as logs:
        await tell_receiver(settings, notify.database)
    (told,) = (line for line in logs if line["event"] == "notifications_left")
    assert "notify.secret_file" in told["message"]
