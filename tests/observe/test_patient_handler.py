"""Log lines to a reader that may not read: nobody waits, nothing is out of order, and what is left out is counted."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from archiver.observe import patient_handler
from archiver.observe.patient_handler import PatientHandler


class Counted(logging.Formatter):
    """Says how many lines are told of."""

    def format(self, record: logging.LogRecord) -> str:
        lines = getattr(record, "lines", None)
        return super().format(record) + ("" if lines is None else f" {lines}")


class Pipe:
    """A pipe, and a handler that writes into it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.handler = PatientHandler(self.writer, "ascii")
        self.handler.setFormatter(Counted("%(message)s"))

    def log(self, text: str) -> None:
        self.handler.handle(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    def read_lines(self, count: int) -> list[str]:
        text = b""
        while text.count(b"\n") < count:
            text += os.read(self.reader, 1 << 20)
        return text.decode().splitlines()

    def read_until(self, last: str) -> list[str]:
        text = b""
        while not text.endswith(f"{last}\n".encode()):
            text += os.read(self.reader, 1 << 20)
        return text.decode().splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


def test_lines_come_in_order_and_whole(pipe: Pipe) -> None:
    for number in range(1000):
        pipe.log(f"line {number}")
    assert pipe.read_lines(1000) == [f"line {number}" for number in range(1000)]
    assert pipe.handler._thread is None, "nothing had to wait"


def test_what_the_encoding_lacks_is_escaped(pipe: Pipe) -> None:
    pipe.log("Gespräch \udcff")
    assert pipe.read_lines(1) == [r"Gespr\xe4ch \udcff"]


def test_nobody_waits_for_a_reader_and_what_is_left_out_is_counted(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_handler, "MAX_BYTES", 200_000)
    monkeypatch.setattr(patient_handler, "FLUSH_SECONDS", 0.05)
    line = "x" * 999
    for _ in range(1000):  # a megabyte, of which the pipe holds a sixteenth
        pipe.log(line)
    pipe.handler.flush()  # gives up
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(pipe.read_until("and on")))
    reading.start()
    monkeypatch.setattr(patient_handler, "FLUSH_SECONDS", 20)
    pipe.handler.flush()
    pipe.log("and on")
    reading.join(20)
    (told,) = (each for each in lines if each.startswith("log_lines_dropped "))
    dropped = int(told.split()[1])
    assert lines == [line] * (1000 - dropped) + [told, "and on"], "it is told where they are missing"
    assert dropped > 500


def test_a_pipe_that_may_not_be_opened_once_more_is_written_by_the_thread_alone(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise PermissionError

    monkeypatch.setattr(patient_handler, "_Pipe", refuse)
    pipe.handler = PatientHandler(pipe.writer, "ascii")
    for number in range(5000):
        pipe.log(f"line {number}")
    assert pipe.read_lines(5000) == [f"line {number}" for number in range(5000)]


def test_a_socket_that_nobody_reads_stops_nobody() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        handler = PatientHandler(ours.fileno(), "ascii")
        for number in range(10_000):
            handler.handle(logging.LogRecord("x", logging.INFO, "", 0, f"line {number}", None, None))
        text = b""
        while text.count(b"\n") < 10_000:
            text += theirs.recv(1 << 20)
    assert text.decode().splitlines() == [f"line {number}" for number in range(10_000)]


def test_a_thread_that_cannot_be_had_fails_nobody_and_is_tried_again(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading.Thread, "start", refuse)
        for number in range(200):
            pipe.log(f"{number:0999}")
    pipe.log("and on")
    assert pipe.read_until("and on") == [*(f"{number:0999}" for number in range(200)), "and on"]


def test_a_line_that_cannot_be_rendered_fails_nobody(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    pipe.handler.handle(logging.LogRecord("x", logging.INFO, "", 0, "%d files", ("a",), None))
    pipe.log("and on")
    assert pipe.read_lines(1) == ["and on"]
    assert "%d files" in capsys.readouterr().err


def test_nothing_is_lost_when_the_process_aborts() -> None:
    program = """
import os
from archiver.observe import logs
logs.configure(level="info", form="json")
for number in range(100):
    logs.logger("x").info("happened", number=number)
os.abort()
"""
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=False, timeout=30)
    assert ended.stderr.count(b'"happened"') == 100


def test_a_reader_that_is_gone_ends_nothing(pipe: Pipe) -> None:
    reader, pipe.reader = pipe.reader, os.dup(pipe.reader)
    os.close(reader)
    os.close(pipe.reader)
    pipe.log("to nobody")
    pipe.handler.flush()
    pipe.reader = os.open(os.devnull, os.O_RDONLY)


@pytest.mark.parametrize("read", [True, False])
def test_the_end_of_the_program_waits_a_moment_for_what_is_not_written(read: bool) -> None:
    program = """
import sys
from archiver.observe import logs, patient_handler
patient_handler.FLUSH_SECONDS = 0.5
logs.configure(level="info", form="json")
for number in range(3000):
    logs.logger("x").info("happened", number=number)
print("ended", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    if read:
        assert process.communicate(timeout=30)[1].count(b"\n") == 3000
    else:
        assert process.stdout.readline() == b"ended\n"
        began = time.monotonic()
        assert process.wait(20) == 0, "a thread that still writes does not disturb the interpreter's end"
        assert time.monotonic() - began < 15
        assert process.stderr.read(1 << 16).count(b"\n") > 100
    process.stdout.close()
    process.stderr.close()
