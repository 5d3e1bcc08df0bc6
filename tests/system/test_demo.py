from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from archiver.stores import MARKER
from tests.system.conftest import Program, eventually

SECRETS = {
    "a token": rb"eyJ[A-Za-z0-9_-]{10,}\.",
    "a signed query": rb"[?&]s=(?!\[redacted\])[A-Za-z0-9+/%]{8}",
    "a signature": rb"(?i)[A-Za-z0-9/]{8}\+[A-Za-z0-9/+]{8}%2B",
}
"""The simulator's signatures all have a plus and a %2B at these places; see archiver/simulator/urls.py."""


class Demo:
    """A demo that ran to its end at log level debug."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "demo"
        self.ended: dict[str, Any] = json.loads((folder / "ended.json").read_text())
        self.stdout: str = self.ended["stdout"]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Demo:
    """One demo for the whole run, whichever process of the run comes first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "finished-demo"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ended.json").exists():
            program = Program(folder)
            ended = subprocess.run(
                [*program.command, "--log-level", "debug", "demo", "--directory", "demo", "--seed", "7"],
                cwd=folder, env=program.environment, capture_output=True, text=True, timeout=100, check=False,
            )  # fmt: skip
            told = {"code": ended.returncode, "stdout": ended.stdout, "stderr": ended.stderr}
            (folder / "ended.json").write_text(json.dumps(told))
    return Demo(folder)


@pytest.fixture
def look(demo: Demo, blank: Program) -> Program:
    """The program, with the configuration that the demo left."""
    blank.config = demo.output / "archiver.toml"
    return blank


def test_the_demo_is_complete_and_its_table_adds_up(demo: Demo) -> None:
    assert demo.ended["code"] == 0, demo.ended
    rows = re.findall(r"^(archived|unavailable|failed|cancelled|pending|claimed|all) +(\d+) ", demo.stdout, re.MULTILINE)
    counts = [(state, int(count)) for state, count in rows]
    assert counts[0][0] == "archived"
    assert counts[-1] == ("all", 300)
    assert sum(count for _, count in counts[:-1]) == 300
    assert {state for state, _ in counts} == {"archived", "unavailable", "failed", "all"}
    told = re.search(r"^(\d+) of (\d+) files read again and equal to their recorded SHA-256$", demo.stdout, re.MULTILINE)
    assert told is not None
    assert told[1] == told[2]
    assert re.search(r"\d\.\d\d per archived recording", demo.stdout)
    for explained in (
        r"^unavailable +1 +probably_purged \(such as: a call of long ago, whose recording the platform has deleted\)",
        r"^shorter_than_call \(call_seconds 60.0, recorded_seconds \[1.5\]\) +1 +the agent paused the recording",
        r"^type_differs, name_differs +1 +a FLAC that is called a WAV",
    ):
        assert re.search(explained, demo.stdout, re.MULTILINE), explained


async def test_what_the_demo_left_can_be_looked_at_as_it_says(demo: Demo, look: Program) -> None:
    status = (await look("status", "--json")).document
    assert sum(status["sessions"].values()) == 300
    assert status["sessions"]["archived"] == int(re.findall(r"^archived +(\d+)", demo.stdout, re.MULTILINE)[0])
    assert (await look("verify")).code == 0
    look.config = None
    look.folder = demo.folder
    for line in re.findall(r"^  (\S*archiver.* --config \S+ (?:status|verify|show \w+))$", demo.stdout, re.MULTILINE):
        result = await look.shell(f"{{ {line}; }}")
        assert result.code == 0, (line, result)


async def test_the_session_that_the_demo_hands_out_is_checked_without_the_program(demo: Demo, blank: Program) -> None:
    (command,) = re.findall(r"^  (cd \S+ && python3 verify.py)$", demo.stdout, re.MULTILINE)
    blank.folder = demo.folder
    result = await blank.shell(f"export PYTHONDONTWRITEBYTECODE=1; {command}")
    assert (result.code, result.stdout.partition(":")[0]) == (0, "1 checked"), result
    assert list((demo.output / "bag/data/0001").glob("1.*"))


async def test_the_hashes_of_five_files_by_hand_are_the_recorded_ones(demo: Demo, look: Program) -> None:
    files = sorted((demo.output / "recordings/bot=demo").rglob("*.wav"))
    for file in files[:: len(files) // 5][:5]:
        session_id = file.relative_to(demo.output / "recordings").parts[2]
        document = (await look("show", session_id, "--json")).document
        recorded = {recording["store_key"]: recording for recording in document["recordings"]}
        recording = recorded[str(file.relative_to(demo.output / "recordings"))]
        assert recording["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert recording["bytes"] == file.stat().st_size


def test_a_demo_at_log_level_debug_writes_no_secret_anywhere(demo: Demo) -> None:
    config = demo.output / "archiver.toml"
    secret = re.findall(r'client_secret = "(.+)"', config.read_text())[0].encode()
    password = (demo.output / "postgres/password").read_bytes().strip()
    allowed = {
        (secret, config),
        (password, demo.output / "postgres/password"),
        (password, demo.output / "postgres/pg_service.conf"),
    }
    found = set()
    seen = 0
    for path in _files(demo.folder):
        content = path.read_bytes()
        seen += 1
        found |= {(value, path) for value in (secret, password) if value in content}
        for what, pattern in SECRETS.items():
            # What looks like one by chance in a recording's samples is none.
            if not any(path.is_relative_to(demo.output / sound) for sound in ("recordings/bot=demo", "bag/data")):
                assert not re.search(pattern, content), (what, path)
    assert seen > 600
    assert found == allowed
    assert all(path.stat().st_mode & 0o777 == 0o600 for _, path in allowed)
    assert (demo.folder / "ended.json").is_file()  # the output was among those files


def test_what_a_demo_keeps_is_not_for_everybody_to_read(demo: Demo) -> None:
    assert demo.output.stat().st_mode & 0o007 == 0o001  # passed through: root's embedded server is not root
    kept = [demo.output / "archiver.log", demo.output / "recordings", *(demo.output / "recordings").rglob("*")]
    # Whose store it is, may be read by workers of every account; here the folder above keeps it from them.
    assert {path.stat().st_mode & 0o007 for path in kept if path.name != MARKER} == {0}


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_nothing_of_a_finished_demo_runs_on(demo: Demo) -> None:
    assert _processes_of(demo.output) == []


def _processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that have something to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                where = str((entry / "cwd").readlink())
            except OSError:
                continue
            if str(folder) in command or where.startswith(str(folder)):
                found.append(command)
    return found


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("moment", ["while it starts", "while it works"])
async def test_ctrl_c_ends_a_demo_and_everything_that_it_started(blank: Program, moment: str) -> None:
    output = blank.folder / "demo"
    running = await blank.start("demo", "--directory", "demo")

    async def underway() -> bool:
        return output.joinpath("postgres").exists() if moment == "while it starts" else any(output.glob("recordings/**/*.wav"))

    await eventually(underway, timeout=60)
    port = int((await _line(running, r"simulated platform on http://127\.0\.0\.1:(\d+)"))[1])
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: to all of them
    result = await running.ended(timeout=40)

    assert result.code == 130
    assert "Traceback" not in result.stderr
    assert _processes_of(output) == []
    assert not _open(port)
    service = output / "postgres/pg_service.conf"
    assert not service.exists() or not _open(int(re.findall(r"port=(\d+)", service.read_text())[0]))


async def _line(running: Any, pattern: str) -> re.Match[str]:
    async def look() -> re.Match[str] | None:
        return next((found for line in running.log if (found := re.search(pattern, line))), None)

    found = await eventually(look)
    assert found is not None
    return found


async def test_a_folder_that_no_demo_made_is_refused_and_left_alone(blank: Program) -> None:
    mine = blank.folder / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (await blank("demo", "--directory", "mine")).refused(2, "mine is not empty, and no demo made it", "--directory")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    (await blank("demo", "--directory", "mine/thesis.txt/x")).refused(2, "mine/thesis.txt")


async def test_a_folder_where_a_demo_runs_is_refused(blank: Program) -> None:
    output = blank.folder / "demo"
    output.mkdir()
    with (output / ".archiver-demo").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        (output / "recordings").mkdir()
        (await blank("demo", "--directory", "demo")).refused(2, "a demo is running in demo")
    assert (output / "recordings").is_dir()


async def test_a_folder_of_wavs_is_archived_byte_for_byte(blank: Program) -> None:
    audio = blank.folder / "my audio"
    audio.mkdir()
    (audio / "notes.txt").write_text("not a recording")
    for name, tone in (("one.wav", b"\x00\x10"), ("TWO.WAV", b"\x00\x20\x01\x02")):
        with wave.open(str(audio / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(tone * 4000)
    bodies = {path.read_bytes() for path in audio.glob("*.[wW]*")}
    assert len(bodies) == 2

    result = await blank("demo", "--directory", "demo [1]", "--audio", "my audio", "--sessions", "100", timeout=100)

    assert result.code == 0, result
    assert "'demo [1]/archiver.toml'" in result.stdout
    files = [path for path in (blank.folder / "demo [1]/recordings/bot=demo").rglob("*") if path.is_file()]
    stored = [path.read_bytes() for path in files if not re.fullmatch(r"session(\.\d+)?\.json", path.name)]
    assert len(stored) > 50
    assert {body for body in stored if body in bodies} == bodies
    others = [body for body in stored if body not in bodies]
    # Two are served as if written as a stream, with sizes of 0 and 0xFFFFFFFF; the slow, the paused and the FLAC are made up.
    assert len(others) == 5
    assert sum(body.startswith(b"fLaC") for body in others) == 1
    assert sum(any(body[44:] == known[44:] for known in bodies) for body in others) == 2


async def test_a_folder_without_wavs_is_refused_before_anything_is_touched(blank: Program) -> None:
    (blank.folder / "audio").mkdir()
    (await blank("demo", "--directory", "demo", "--audio", "audio")).refused(2, "--audio", "no *.wav")
    assert not (blank.folder / "demo").exists()
    (blank.folder / "audio/broken.wav").write_bytes(b"no RIFF at all")
    (await blank("demo", "--directory", "demo", "--audio", "audio")).refused(2, "--audio", "broken.wav")


async def test_simulate_serves_until_it_is_stopped(blank: Program) -> None:
    running = await blank.start("simulate", "--port", "0", "--demo", "100")
    await running.printed("ready")
    port = int((await _line(running, r"API +http://127\.0\.0\.1:(\d+)"))[1])
    assert _open(port)
    running.send(signal.SIGTERM)
    result = await running.ended()
    assert (result.code, len(set(result.stdout.split()))) == (143, 100)
    assert not _open(port)


async def test_simulate_lists_the_calls_of_a_history(blank: Program) -> None:
    call = {"session_id": "one", "started_at": "2025-03-17T09:00:00Z"}
    (blank.folder / "history.json").write_text(json.dumps({"calls": [call]}))
    limits = ("--account-id", "a-1", "--account-rate-limit", "2/hour")
    running = await blank.start("simulate", "--port", "0", "--history", "history.json", *limits)
    await running.printed("ready")
    api = (await _line(running, r"API +(http://127\.0\.0\.1:\d+)"))[1]
    day = {"startDate": "2025-03-17 00:00:00", "endDate": "2025-03-17 23:59:59", "timeZoneOffset": 0}
    token = jwt.encode({"sub": "a", "appId": "cs-simulated"}, "simulated-secret-of-no-worth-0123456789")
    headers = {"auth": token, "accountId": "a-1", "iId": "st-simulated"}
    async with aiohttp.ClientSession(api, headers=headers) as http:
        for status in (200, 200, 429):
            async with http.post("/agentassist/api/public/analytics/account/a-1/v2/callDetails", json=day) as response:
                assert response.status == status
                listed = await response.json()
                assert status != 200 or [row["sessionId"] for row in listed["data"]] == ["one"]
    running.send(signal.SIGTERM)
    assert (await running.ended()).code == 143


async def test_simulate_refuses_what_it_cannot_serve(blank: Program) -> None:
    (blank.folder / "sessions.json").write_text('[{"session_id": "x", "answer": []}]')
    (await blank("simulate", "--port", "0", "--sessions", "sessions.json")).refused(2, "answer", "x")
    (blank.folder / "history.json").write_text('{"calls": [{"session_id": "x"}]}')
    (await blank("simulate", "--port", "0", "--history", "history.json")).refused(2, "history", "started_at")
    (await blank("simulate", "--calls", "9", "--history", "history.json")).refused(2, "--calls", "--history")
    (await blank("simulate", "--port", "0", "--account-rate-limit", "fast")).refused(2, "account_rate_limits", "'fast'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (await blank("simulate", "--port", str(taken.getsockname()[1]))).refused(2, "simulate: ", "--port")
