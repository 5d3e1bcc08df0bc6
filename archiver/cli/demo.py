"""`archiver demo`: everything, end to end, against the simulator, in one folder that nothing else shares."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from archiver.account.closing import Closing
from archiver.account.status import status_document
from archiver.cli.accounts import close
from archiver.cli.app import Incomplete
from archiver.cli.compose import opened, run_async
from archiver.cli.output import console, safe, size, table
from archiver.cli.serving import composed_worker, stop_on_signals
from archiver.config import Settings, load
from archiver.errors import UsageError
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.report import Report
from archiver.evidence.audit.whole import audit
from archiver.evidence.bag.choosing import Choice
from archiver.evidence.bag.whole import Export
from archiver.evidence.keys import SealingKey
from archiver.evidence.verify import Terms, Verification, Verified
from archiver.kore.listings.calls import Span
from archiver.observe import logs
from archiver.observe.tally import Tally
from archiver.postgres.database import Database
from archiver.queue.reports import Reports
from archiver.queue.search import Chosen
from archiver.queue.sessions import NewSession
from archiver.runtime.buffers import Buffers
from archiver.session import State
from archiver.stores.open import open_store

MARK = ".archiver-demo"
ELSEWHERE = "name another folder with --directory"
BOT = "demo"

CONFIG = """\
# Written by `archiver demo`. Its platform lives only as long as the demo runs; status, show and verify work on.
[database]
url = "embedded:postgres"

[[bots]]
name = "{bot}"
host = "{api}"
bot_id = "{bot_id}"
client_id = "{client_id}"
client_secret = "{client_secret}"
rate_limits = ["6000/minute"]
source_retention = "90d"
media_hosts = ["127.0.0.1", "*.kore.ai"]

[storage]
url = "{store}"

[retry]
max_attempts = 4
backoff_base = "200ms"
backoff_max = "1s"
not_ready_delays = ["300ms", "600ms", "1s"]

[evidence]
key_file = "evidence.key"
"""


@dataclass(frozen=True)
class _Told:
    """What the simulator was told to play, by session."""

    notes: dict[str, str]
    expected: dict[str, str]


@click.command(short_help="Archive 300 simulated sessions into a folder, and prove them.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path("archiver-demo"), show_default=True,
              help="Where to put everything; the folder of an earlier demo is replaced.")  # fmt: skip
@click.option("--sessions", type=click.IntRange(100, 100_000), default=300, show_default=True)
@click.option("--audio", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR",
              help="Serve the WAVs of this folder as recordings; else telephone-format ones are made up.")  # fmt: skip
@click.option("--seed", type=int, help="For the same sessions again.")
@click.pass_context
def command(ctx: click.Context, directory: Path, sessions: int, audio: Path | None, seed: int | None) -> None:
    """Archive 300 simulated sessions, which meet every status of the platform and every fault of a network, into ./archiver-demo;
    then read every stored file again, hold it all against the sealed ledger, hand one session out, and say what became of all.

    Starts a stand-in for the platform on loopback and an embedded Postgres; both end with it.

    Exit codes: 0 every session ended as it should, every file is equal and the audit is clean; 1 fatal; 2 usage; 3 something did
    not; 129, 130, 143 stopped by a signal.
    """
    chosen = secrets.randbelow(10**6) if seed is None else seed
    wav_names(audio)  # before a former demo's folder is emptied
    with _folder(directory) as folder:
        done = run_async(_demo(folder, sessions, audio, chosen, ctx.obj["log_level"]))
    if not done:
        raise Incomplete


def wav_names(audio: Path | None) -> list[str] | None:
    """The WAVs that --audio names. Raises UsageError if there are none."""
    if audio is None:
        return None
    from archiver.simulator.audio import load_folder

    try:
        return list(load_folder(audio))
    except ValueError as error:
        raise UsageError(f"--audio: {error}", hint="name a folder that holds *.wav files") from None


@contextmanager
def _folder(directory: Path) -> Iterator[Path]:
    """The demo's folder, empty, and ours alone for as long as it runs. A folder that no demo made is never touched."""
    with ExitStack() as stack:
        try:
            _take(directory, stack)
        except BlockingIOError:
            raise UsageError(f"a demo is running in {directory}", hint=ELSEWHERE) from None
        except OSError as error:
            raise UsageError(f"{error.filename or directory}: {error.strerror}", hint=ELSEWHERE) from None
        yield directory.absolute()


def _take(directory: Path, stack: ExitStack) -> None:
    mark = directory / MARK
    if directory.exists() and not mark.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory} is not empty, and no demo made it", hint=ELSEWHERE)
    # Passed through by the account of the embedded server where root starts it, and not listed by others.
    directory.mkdir(mode=0o751, parents=True, exist_ok=True)
    if (owner := directory.stat().st_uid) != os.geteuid():
        raise UsageError(f"{directory} belongs to uid {owner}, who could put anything in the place of our files", hint=ELSEWHERE)
    directory.chmod(directory.stat().st_mode & 0o7755)
    descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for entry in directory.iterdir():
        if entry.name != MARK:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


async def _demo(folder: Path, sessions: int, audio: Path | None, seed: int, level: str | None) -> bool:
    from archiver.simulator.platform import Simulator, SimulatorSettings
    from archiver.simulator.scenario import demo_scenario

    errors = Console(stderr=True, highlight=False, emoji=False)
    started = time.monotonic()
    audio_files = wav_names(audio)
    scripts = demo_scenario(sessions, seed=seed, audio_files=audio_files)
    log_path = folder / "archiver.log"
    told = _Told({s.session_id: s.note for s in scripts}, {s.session_id: s.expected or "" for s in scripts})
    now = datetime.now(UTC).replace(microsecond=0)
    calls = {s.session_id: _times(s.call, now) for s in scripts if s.call is not None}
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(
            Simulator(
                SimulatorSettings(
                    audio_dir=audio, rate_limits=("6000/minute",), account_rate_limits=("6000/minute",), control=False
                )
            )
        )
        try:
            platform.script_all(scripts)
            platform.set_history(
                {"calls": [{"session_id": i, "started_at": span.start, "ended_at": span.end} for i, span in calls.items()]}
            )
        except ValueError as error:
            raise UsageError(f"--audio: {error}", hint="take that file out of the folder") from None
        settings = _configure(folder, platform)
        log_descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        log_file = stack.enter_context(os.fdopen(log_descriptor, "w", encoding="utf-8"))
        logs.configure(level=level or "info", form="json", stream=log_file)
        errors.print(f"simulated platform on {platform.api_url}, seed {seed}; log in {safe(log_path)}", soft_wrap=True)
        database, queue = await stack.enter_async_context(opened(settings, pool_size=12))
        waiting = [
            NewSession(BOT, i, started_at=calls[i].start, ended_at=calls[i].end) if i in calls else NewSession(BOT, i)
            for i in (script.session_id for script in scripts)
        ]
        new, _ = await queue.enqueue(waiting, actor="archiver demo")
        errors.print(f"{new} sessions enqueued")
        tally = Tally()
        worker = await stack.enter_async_context(composed_worker(settings, database, queue, tally))
        with stop_on_signals(worker, at_once=True) as received, _display(errors) as live:
            display = asyncio.create_task(_show_progress(live, database, tally, sessions))
            try:
                await worker.run(drain=True)
            finally:
                display.cancel()
                await asyncio.gather(display, return_exceptions=True)
        if received:
            raise click.exceptions.Exit(128 + received[0])
        first = min(span.start for span in calls.values())
        closing = await close(settings, database, settings.bots, {BOT: Span(first, now)}, command="reconcile")
        assert worker.sealer is not None, "it has a key"
        await worker.sealer.finish()
        report = platform.report()
        worked = time.monotonic() - started
        async with open_store(settings.storage, Buffers(settings.transfer.max_buffer)) as store:
            verified: list[Verified] = []
            await Verification(database, store, Terms()).run(verified.append)
            key = SealingKey.load(folder / "evidence.key").public
            audited = await audit(database, store, Wanted(settings.storage.path, settings.evidence.patience, deep=True, key=key))
            one = next((found.session_id for found in verified if found.verdict == "equal"), None)
            if one is not None:
                buffers = Buffers(settings.transfer.max_buffer)
                chosen = Choice({"session": one}, Chosen(), ids=lambda: (one,))
                await Export(database, store, buffers, "archiver demo").run(folder / "bag", chosen)
                await worker.sealer.finish()
        document = await status_document(database, settings.bots)
        reports = Reports(database)
        ends = {each.session_id: (each.state, each.reason) for each in await reports.list_outcomes()}
        flagged = {file.session_id: ", ".join(file.flags) for file in await reports.list_flagged_files()}
    return _close(folder, document, verified, audited, ends, told, _findings(flagged, closing), report, worked)


def _times(call: Any, now: datetime) -> Span:
    began = now - timedelta(days=call.days_ago)
    return Span(began, began + timedelta(seconds=call.seconds))


def _findings(flagged: dict[str, str], closing: Closing) -> dict[str, str]:
    """What an auditor should know of archived sessions, by ID: their files' flags, and what their account holds against them."""
    found = dict(flagged)
    for item in closing.account.items:
        for mismatch in item.facts.get("mismatches", ()):
            facts = ", ".join(f"{key} {value}" for key, value in mismatch.items() if key != "mismatch")
            found[item.session_id] = f"{mismatch['mismatch']} ({facts})"
    return found


def _configure(folder: Path, platform: Any) -> Settings:
    path = folder / "archiver.toml"
    SealingKey.make(folder / "evidence.key", "archiver demo")
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(
        CONFIG.format(
            bot=BOT,
            api=platform.api_url,
            bot_id=platform.bot_id,
            client_id=platform.client_id,
            client_secret=platform.client_secret,
            store=(folder / "recordings").as_uri(),
        ),
        encoding="utf-8",
    )
    return load(path, environment={})


@contextmanager
def _display(errors: Console) -> Iterator[Live | None]:
    """A live display on a terminal, nothing elsewhere."""
    if not errors.is_terminal:
        yield None
        return
    with Live(console=errors, transient=True, refresh_per_second=8) as live:
        yield live


async def _show_progress(live: Live | None, database: Database, tally: Tally, total: int) -> None:
    """Sessions by state, bytes, rate, time left; read from the database, as anybody could."""
    if live is None:
        return
    started = time.monotonic()
    while True:
        rows = await Reports(database).count_sessions()
        counts = {state.value: 0 for state in State} | {row.state: row.sessions for row in rows}
        ended = total - counts["pending"] - counts["claimed"]
        seconds = max(time.monotonic() - started, 0.001)
        left = f"{(total - ended) * seconds / ended:.0f} s left" if ended else ""
        grid = Table.grid(padding=(0, 2))
        grid.add_row(*(f"{state} [bold]{count}[/bold]" for state, count in counts.items()))
        rates = f"{size(tally.transfers.bytes / seconds)}/s, {ended / seconds:.0f} sessions/s"
        line = f"{ended}/{total} sessions, {size(tally.transfers.bytes)}, {rates}, {left}"
        live.update(Group(ProgressBar(total=total, completed=ended, width=60), grid, line))
        await asyncio.sleep(0.2)


def _close(
    folder: Path,
    document: dict[str, Any],
    verified: list[Verified],
    audited: Report,
    ends: dict[str, tuple[str, str | None]],
    told: _Told,
    findings: dict[str, str],
    report: dict[str, Any],
    seconds: float,
) -> bool:
    """Print the closing table; say whether everything is as it should be."""
    out = console()
    sessions = document["sessions"]
    account = table("state", "sessions", "why", right=[1])
    account.add_row("archived", str(sessions["archived"]), "every recording stored and confirmed")
    whys = Counter((state, reason or "") for state, reason in ends.values())
    for state in ("unavailable", "failed", "cancelled", "pending", "claimed"):
        for (_, reason), count in sorted(((k, c) for k, c in whys.items() if k[0] == state), key=lambda item: -item[1]):
            example = next(told.notes[i] for i, end in ends.items() if (end[0], end[1] or "") == (state, reason))
            account.add_row(state, str(count), f"{safe(reason)} (such as: {safe(example)})")
    account.add_section()
    account.add_row("all", str(sum(sessions.values())), "")
    out.print()
    out.print(account)
    known = table("of the archived", "sessions", "such as", right=[1])
    for finding, count in sorted(Counter(findings.values()).items()):
        example = next(told.notes[i] for i, each in findings.items() if each == finding)
        known.add_row(safe(finding), str(count), safe(example))
    out.print()
    out.print(known)
    wrong = [found for found in verified if found.verdict != "equal"]
    surprises = {i: end[0] for i, end in ends.items() if told.expected[i] and end[0] != told.expected[i]}
    calls = report["api"]["calls"]
    archived = max(sessions["archived"], 1)
    out.print()
    out.print(f"{document['recordings']} recordings, {size(document['bytes'])}, in {seconds:.1f} s")
    out.print(f"{len(verified) - len(wrong)} of {len(verified)} files read again and equal to their recorded SHA-256")
    what = "clean" if audited.clean else f"{audited.findings.counts.total()} findings"
    out.print(f"{audited.entries} entries sealed in the ledger; audited with all that they name: {what}")
    out.print(f"{calls} API calls as the platform counted them, {calls / archived:.2f} per archived session, "
              f"{calls / max(document['recordings'], 1):.2f} per archived recording", soft_wrap=True)  # fmt: skip
    breaches = {key: report["media"][key] for key in ("altered_urls", "leaked_auth") if report["media"][key]}
    for found in wrong:
        out.print(f"{found.verdict}: {safe(found.store_key)}: {safe(found.message)}")
    for session_id, state in surprises.items():
        out.print(f"unexpected: {session_id} ({safe(told.notes[session_id])}) is {state}, not {told.expected[session_id]}")
    for key, count in breaches.items():
        out.print(f"breach: the platform saw {count} {key}")
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    out.print(f"the files are in {safe(shown / 'recordings')}; look closer with:", soft_wrap=True)
    one = next((i for i, end in sorted(ends.items()) if end[0] == "archived"), "ID")
    program = f"{_program()} --config {shlex.quote(str(shown / 'archiver.toml'))}"
    for what in ("status", "verify", "audit --deep", f"show {one}"):
        out.print(f"  {safe(program)} {what}", soft_wrap=True)
    if (folder / "bag/bagit.txt").exists():
        out.print("one session was handed out, to be checked without this program:")
        out.print(f"  cd {safe(shlex.quote(str(shown / 'bag')))} && python3 verify.py", soft_wrap=True)
    complete = sum(sessions.values()) == len(told.notes) and sessions["pending"] == sessions["claimed"] == 0
    return complete and audited.clean and not (wrong or surprises or breaches)


def _program() -> str:
    """How to call this program from here, to be copied: from a virtual environment that is not active, by its path."""
    if shutil.which("archiver"):
        return "archiver"
    beside = Path(sys.executable).with_name("archiver")
    if not beside.is_file():
        return f"{shlex.quote(sys.executable)} -m archiver"
    return shlex.quote(str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside))
