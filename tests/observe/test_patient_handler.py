"""Log lines to a reader that may not read: nobody waits, nothing is out of order, and what is left out is counted."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from archiver.observe import patient_handler
from archiver.observe.patient_handler import PatientHandler


class Pipe:
    """A pipe, and a handler that writes into it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.dropped: list[int] = []
        self.told = threading.Event()
        self.handler = PatientHandler(self.writer, "ascii", self._on_dropped)

    def _on_dropped(self, lines: int) -> None:
        self.dropped.append(lines)
        self.told.set()

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
    pipe.handler.flush()
    assert pipe.dropped == []


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
    assert pipe.dropped == []
    monkeypatch.setattr(patient_handler, "FLUSH_SECONDS", 20)
    lines: list[str] = []
    reading = threading.Thread(target=lambda: lines.extend(pipe.read_until("and on")))
    reading.start()
    pipe.handler.flush()
    assert pipe.told.wait(20), "counted as soon as the others are written"
    pipe.handler.flush()
    pipe.log("and on")
    reading.join(20)
    assert lines[-1] == "and on"
    assert set(lines[:-1]) == {line}
    assert len(lines) - 1 + sum(pipe.dropped) == 1000
    assert sum(pipe.dropped) > 500


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
