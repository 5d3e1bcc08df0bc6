"""What is logged: one event a happening with session, bot and attempt on it, machine-readable, and nothing secret."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from archiver.config import LogSettings
from archiver.observe import logs
from archiver.observe.redact import remember_secret
from tests.worker.conftest import Logged, WorkerHarness, session_id

SECRET = "correct-horse-battery-staple"
SIGNED = "https://media.example/x.wav?e=1709706278&n=6398115875&s=InpqMWpnIg$$"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def usual_logs() -> Iterator[None]:
    """What a test sets up, it takes down."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.TALKATIVE}
    before = structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    for name, before_it in levels.items():
        logging.getLogger(name).setLevel(before_it)
    structlog.configure(**before)


def _fail(text: str) -> None:
    raise RuntimeError(text)


def log_to(stream: io.StringIO, **settings: Any) -> logs.Logger:
    log = LogSettings(**settings)
    logs.configure(level=log.level, form=log.format, stream=stream)
    return logs.logger("archiver.test")


async def test_every_happening_of_a_session_names_it(harness: WorkerHarness, logged: Logged) -> None:
    ids = await harness.scripted(3)
    harness.simulator.script({"session_id": ids[1], "answers": [{"raw": "?"}]})
    harness.simulator.script(
        {"session_id": ids[2], "answers": [{"status": "media_in_progress", "times": 1}, {"status": "success"}]}
    )
    await harness.drained()
    told = [entry for entry in logged.entries if entry["event"].startswith("session_")]
    assert all({"session", "bot", "kind", "attempt", "epoch"} <= set(entry) for entry in told)
    by_session = {
        one: [(entry["event"], entry.get("reason"), entry["attempt"]) for entry in told if entry["session"] == one] for one in ids
    }
    assert by_session == {
        ids[0]: [("session_archived", None, 1)],
        ids[1]: [
            ("session_retry", "api_answer_invalid", 1),
            ("session_retry", "api_answer_invalid", 2),
            ("session_failed", "api_answer_invalid", 3),
        ],
        ids[2]: [("session_not_ready", None, 1), ("session_archived", None, 1)],
    }
    assert session_id(0) == ids[0]


def test_elsewhere_than_on_a_terminal_each_line_is_json() -> None:
    stream = io.StringIO()
    log = log_to(stream)
    log.info("one", session="s-1", number=3, none=None, nested={"a": [1, "zwei"]}, name='"quoted"')
    log.warning("two", other=object())
    logging.getLogger("some.library").error("three %s", "args")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["one", "two", "three args"]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert lines[0].items() >= {"session": "s-1", "number": 3, "none": None, "name": '"quoted"'}.items()
    assert lines[0]["nested"] == {"a": [1, "zwei"]}
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.parametrize(("level", "heard"), [("debug", ["warning", "error"]), ("error", ["error"])])
def test_libraries_that_log_what_they_sign_are_heard_from_a_warning_on(level: str, heard: list[str]) -> None:
    import archiver.stores.azure.access
    import archiver.stores.s3.signing  # noqa: F401  # what they set for their libraries holds, too

    for name in (
        "botocore.auth",
        "botocore.parsers",
        "azure.core.pipeline",
        "msal.token_cache",
        "urllib3.connectionpool",
        "boto3",
    ):
        stream = io.StringIO()
        log_to(stream, level=level)
        library = logging.getLogger(name)
        for said in ("debug", "info", "warning", "error"):
            getattr(library, said)("x")
        assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == heard, name


def test_on_a_terminal_it_is_for_people() -> None:
    stream = Terminal()
    log_to(stream).info("session_archived", session="s-1")
    (line,) = stream.getvalue().splitlines()
    assert "session_archived" in line
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(line)


ACTING = "\0 \x07 \x1b[2J \r \n \x7f \x85 \x9b2J \u00ad \u061c \u200b \u200f \u2028 \u2029 \u202e \u2066 \ufeff \ud800 \U000e0001"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_character_that_acts_is_logged_but_a_tracebacks_lines(form: str) -> None:
    """A line may end on a terminal, whoever took it out of its JSON."""
    stream = io.StringIO()
    log = log_to(stream, format=form)
    log.info(f"one{ACTING}", text=f"two{ACTING}", nested={f"three{ACTING}": [f"four{ACTING}", {"deep": f"five{ACTING}"}]})
    logging.getLogger("some.library").error(f"six{ACTING}")
    try:
        _fail(f"seven{ACTING}")
    except RuntimeError:
        log.exception("failed")
    output = stream.getvalue()
    output.encode()
    said = output if form == "console" else "".join(str(json.loads(line)) for line in output.splitlines())
    for character in set(ACTING) - set(" [2J\n"):
        assert character not in output, hex(ord(character))
        assert character not in said
    for word in ("one", "two", "three", "four", "five", "six", "seven"):
        assert f"{word}\\x00 \\x07 \\x1b[2J \\r " in output.replace("\\\\", "\\")
    lines = output.splitlines() if form == "json" else output.partition("Traceback")[0].splitlines()
    assert len(lines) == 3
    if form == "json":
        assert json.loads(lines[2])["exception"].count("\n") > 3
    assert "\\u202e" in output


@pytest.mark.parametrize("settings", [{"format": "console"}, {}], ids=["console", "terminal"])
def test_nothing_from_outside_steers_the_terminal(settings: dict[str, Any]) -> None:
    stream = Terminal()
    log = log_to(stream, **settings)
    log.info("event", name="\x1b]0;pwned\x07a.wav", wide="\u009b2J", nested={"k": "\x1b[2J"})
    logging.getLogger("some.library").error("\x1b[2Jlibrary")
    text = stream.getvalue()
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\u009b" not in text
    assert "a.wav" in text


def test_the_level_is_kept() -> None:
    stream = io.StringIO()
    log = log_to(stream, level="warning")
    log.info("unheard")
    log.warning("heard")
    logging.getLogger("some.library").info("unheard")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["heard"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_secret_passes_whoever_logs_it(form: str) -> None:
    remember_secret(SECRET)
    stream = io.StringIO()
    log = log_to(stream, format=form, level="debug")
    texts = [SECRET, SIGNED, TOKEN, f"auth: {TOKEN}", "postgresql://archiver:hunter2-hunter2@db/archiver"]
    for text in texts:
        log.info(f"event {text}", plain=text, nested={"deep": [{"er": text}]}, error=ValueError(text), many=(text,))
        logging.getLogger("some.library").warning("library %s", text, extra={"more": text})
        try:
            _fail(text)
        except RuntimeError as error:
            log.warning("failed", exc_info=error)
            log.exception("failed")
            logging.getLogger("some.library").exception("library failed")
    output = stream.getvalue()
    assert output.count("RuntimeError") >= 3 * len(texts)
    assert "Traceback" in output
    for secret in (SECRET, "InpqMWpnIg", "6398115875", "c2lnbmF0dXJl", "hunter2"):
        assert secret not in output


async def test_a_whole_run_at_debug_level_is_json_lines_without_secrets(harness: WorkerHarness) -> None:
    ids = await harness.scripted(3)
    harness.simulator.script({"session_id": ids[0], "recordings": [{"faults": [{"kind": "expired"}]}]})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "archiver", "--config", str(harness.config_file()), "--log-level", "debug", "worker", "--drain"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, out) == (0, b"")
    lines = [json.loads(line) for line in err.decode().splitlines()]
    assert [line["event"] for line in lines].count("session_archived") == 3
    for secret in (harness.simulator.client_secret, "s=", "eyJ"):
        assert secret not in err.decode()
