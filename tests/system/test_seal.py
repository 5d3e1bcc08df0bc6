"""The ledger as its users meet it: workers that seal, `seal`, `checkpoint`, `key rotate`, and what is in the way of sealing."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.evidence.sealing import check_chain
from tests.programs import installed
from tests.system.conftest import Program, archived, eventually

ORIGIN = "archive.example/calls"


@pytest.fixture
def sealing(archiver: Program, data: dict[str, Any]) -> Program:
    """The program with a key."""
    SealingKey.make(archiver.folder / "evidence.key", "test")
    archiver.configure(data | {"evidence": {"key_file": "evidence.key", "origin": ORIGIN, "interval": "1s"}})
    return archiver


def entries(program: Program) -> list[dict[str, Any]]:
    return check_chain(program.folder / "store", ORIGIN)


def accepted_by_openssh(program: Program, size: int, signers: str = "0001") -> bool:
    folder = program.folder / "store/evidence"
    command = [installed("ssh-keygen", "openssh-client"), "-Y", "verify", "-f", str(folder / f"keys/{signers}.allowed_signers"),
               "-I", ORIGIN, "-n", "archiver-checkpoint", "-s", str(folder / f"checkpoint/{size:012}.sig")]  # fmt: skip
    note = (folder / f"checkpoint/{size:012}").read_bytes()
    return subprocess.run(command, input=note, capture_output=True, check=False).returncode == 0


async def test_a_drain_ends_with_all_sealed_and_the_next_key_goes_on(sealing: Program, simulator: Simulator) -> None:
    await archived(sealing, simulator, "s-1", "s-2")
    assert len(entries(sealing)) == 3
    status = (await sealing("status", "--json")).document["evidence"]
    assert (status["proven"], status["entries"], status["unsealed"]) == (True, 3, 0)
    printed = await sealing("checkpoint")
    assert printed.stdout.splitlines()[:2] == [ORIGIN, "3"]
    sizes = [path.name for path in (sealing.folder / "store/evidence/checkpoint").iterdir() if path.suffix != ".sig"]
    assert all(accepted_by_openssh(sealing, int(size)) for size in sizes)
    again = await sealing("seal")
    assert (again.code, again.stdout) == (0, f"0 entries sealed; the ledger of {ORIGIN} has 3\n")

    SealingKey.make(sealing.folder / "new.key", "test")
    rotated = await sealing("key", "rotate", "--new", "new.key")
    assert rotated.code == 0, rotated
    assert "next: set evidence.key_file to new.key" in rotated.stdout
    assert accepted_by_openssh(sealing, 4)
    (await sealing("seal")).refused(
        1, "evidence.key_file is SHA256:", "and the ledger is signed by SHA256:", "archiver key rotate"
    )
    doctor = await sealing("doctor")
    assert "failure evidence: evidence.key_file is SHA256:" in doctor.stdout
    with_new = {"ARCHIVER_EVIDENCE__KEY_FILE": str(sealing.folder / "new.key")}
    await sealing("enqueue", "not-asked-for")
    assert (await sealing("cancel", "--reason", "a test", "not-asked-for")).code == 0
    sealed = await sealing("seal", "--json", environment=with_new)
    assert (sealed.document["sealed"], sealed.document["entries"]) == (1, 5)
    assert accepted_by_openssh(sealing, 5, "0002")
    assert not accepted_by_openssh(sealing, 5)


async def test_a_worker_that_stays_seals_every_so_often(sealing: Program, simulator: Simulator) -> None:
    running = await sealing.start("worker")
    simulator.script({"session_id": "s-1"})
    assert (await sealing("enqueue", "s-1")).code == 0
    if (await running.logged("entries_sealed"))["last"] == 0:  # else it was archived before the first was sealed
        await running.logged("entries_sealed", times=2)
    running.send(signal.SIGTERM)
    assert (await running.ended()).code == 143
    assert [entry["event"] for entry in entries(sealing)] == ["key", "settled"]


async def test_without_a_key_all_else_works_and_nothing_is_said_to_be_proven(archiver: Program, simulator: Simulator) -> None:
    await archived(archiver, simulator, "s-1")
    assert not (archiver.folder / "store/evidence").exists()
    assert "nothing is proven" in (await archiver("status")).stdout
    doctor = await archiver("doctor")
    assert "warning evidence: nothing is sealed, so nothing is proven" in doctor.stdout
    (await archiver("checkpoint")).refused(1, "nothing is sealed yet", "archiver seal")
    (await archiver("seal")).refused(2, "evidence.key_file is empty", "archiver init")
    account = await archiver("reconcile", "--from", "2026-01-01", "--to", "2026-01-02", "--format", "json")
    assert account.document["evidence"]["proven"] is False


Harm = Callable[[Program], None]


def readable_by_all(program: Program) -> None:
    (program.folder / "evidence.key").chmod(0o644)


def no_key(program: Program) -> None:
    (program.folder / "evidence.key").write_text("no key")


def gone(program: Program) -> None:
    (program.folder / "evidence.key").unlink()


def foreign_claim(program: Program) -> None:
    folder = program.folder / "store/evidence/claim"
    folder.mkdir(parents=True)
    (folder / "000000000000").write_text("another's")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (readable_by_all, "may be read or changed by everybody"),
        pytest.param(no_key, "evidence.key_file", marks=pytest.mark.thorough),
        pytest.param(gone, "No such file or directory", marks=pytest.mark.thorough),
        (foreign_claim, "the store has a ledger, and this database has none"),
    ],
)
async def test_what_cannot_be_sealed_is_archived_all_the_same(
    sealing: Program, simulator: Simulator, harm: Harm, told: str
) -> None:
    harm(sealing)
    simulator.script({"session_id": "s-1"})
    assert (await sealing("enqueue", "s-1")).code == 0
    drained = await sealing("worker", "--drain")
    assert drained.code == 3
    assert "Traceback" not in drained.stderr
    failed = [line for line in map(json.loads, drained.stderr.splitlines()) if line["event"] == "sealing_failed"]
    assert failed
    assert told in failed[0]["message"]
    assert failed[0]["hint"]
    assert (await sealing("show", "s-1", "--json")).document["state"] == "archived"


def move(source: Path, target: Path) -> None:
    source.rename(target)


async def test_a_key_that_goes_away_half_way_stops_no_worker(sealing: Program, simulator: Simulator, sql: Any) -> None:
    running = await sealing.start("worker")
    await running.logged("entries_sealed")
    key, away = sealing.folder / "evidence.key", sealing.folder / "away"
    move(key, away)
    simulator.script({"session_id": "s-1"})
    assert (await sealing("enqueue", "s-1")).code == 0
    failed = await running.logged("sealing_failed")
    assert "evidence.key_file" in failed["message"]
    assert (await sealing("show", "s-1", "--json")).document["state"] == "archived"
    move(away, key)
    await running.logged("entries_sealed", times=2)
    assert await sql.fetchval("SELECT count(*) FROM archive_ledger_outbox") == 0


# --- killed and stopped

Seen = Callable[[Path, Any], Awaitable[bool]]


async def batch_kept(_: Path, sql: Any) -> bool:
    return bool(await sql.fetchval("SELECT count(*) FROM archive_ledger_batches WHERE published_at IS NULL"))


def there(pattern: str, count: int = 1) -> Seen:
    async def look(store: Path, _: Any) -> bool:
        return found(store) >= count

    def found(store: Path) -> int:
        return len(list(store.glob(pattern)))

    return look


STEPS = {
    "batch": batch_kept,
    "claim": there("evidence/claim/000000000001"),
    "segment": there("evidence/ledger/000000000001-*"),
    "records": there("bot=bot/*/*/*/session.json", 20),
    "signature": there("evidence/checkpoint/000000000121.sig"),
    "checkpoint": there("evidence/checkpoint/000000000121"),
}


ALWAYS = {("records", signal.SIGKILL), ("segment", signal.SIGSTOP)}
"""Of the others `tests/evidence` has the like in one process."""


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param(step, number, marks=() if (step, number) in ALWAYS else pytest.mark.thorough)
        for step in STEPS
        for number in (signal.SIGKILL, signal.SIGSTOP)
    ],
)
async def test_a_sealer_killed_or_stopped_at_any_step_leaves_one_history(
    sealing: Program, sql: Any, step: str, number: signal.Signals, data: dict[str, Any]
) -> None:
    """Where it was is about that step: it goes on until the signal has come. What must hold, holds wherever it was."""
    evidence = {"key_file": "evidence.key", "origin": ORIGIN}
    sealing.configure(data | {"evidence": evidence, "worker": {"lease_seconds": 1}})
    assert (await sealing("seal")).code == 0
    await sql.execute("INSERT INTO archive_queue (bot, session_id) SELECT 'bot', 's-' || n FROM generate_series(1, 120) n")
    await sql.execute("""
        WITH ended AS (
            UPDATE archive_queue SET state = 'cancelled', reason = 'test', finished_at = now()
            RETURNING archive_queue AS session, id
        )
        INSERT INTO archive_ledger_outbox (event, queue_id, body)
        SELECT 'settled', id, archive_ledger_body(session, '[]', 'test') FROM ended ORDER BY id""")
    first = await sealing.start("seal")

    async def reached() -> bool:
        return first.process.returncode is not None or await STEPS[step](sealing.folder / "store", sql)

    await eventually(reached, every=0.001)
    if first.process.returncode is None:
        first.send(number)
    second = await sealing("seal")
    assert second.code == 0, second
    if number == signal.SIGSTOP:
        first.send(signal.SIGCONT)
        assert (await first.ended()).code in (0, 1)
    sealed = entries(sealing)
    assert sorted(entry["session"] for entry in sealed[1:]) == sorted(f"s-{n}" for n in range(1, 121))
    assert await sql.fetchval("SELECT count(*) FROM archive_ledger_outbox") == 0


async def test_what_is_printed_and_logged_has_nothing_of_the_key(sealing: Program, simulator: Simulator) -> None:
    secret = [line for line in (sealing.folder / "evidence.key").read_text().splitlines() if "-" not in line]
    simulator.script({"session_id": "s-1"})
    await sealing("enqueue", "s-1")
    for arguments in (["--log-level", "debug", "worker", "--drain"], ["doctor", "--json"]):
        result = await sealing(*arguments)
        assert not [line for line in secret if line in result.stdout + result.stderr]


async def test_what_was_sealed_before_a_night_is_all_that_happened_in_it(sealing: Program, simulator: Simulator) -> None:
    night = await sealing("nightly", "--from", "2026-01-01", "--to", "2026-01-02", "--format", "json")
    assert night.code == 0, night
    evidence = night.document["evidence"]
    assert (evidence["entries"], evidence["unsealed"]) == (2, 0)
    assert evidence["checkpoint"] == (sealing.folder / "store/evidence/checkpoint/000000000002").read_text()
    again = await sealing("nightly", "--from", "2026-01-01", "--to", "2026-01-02")
    assert again.stdout.endswith((await sealing("checkpoint")).stdout)
    assert [entry["event"] for entry in entries(sealing)] == ["key", "account", "account"]


async def test_a_store_that_is_sealed_into_first_is_the_archives(sealing: Program) -> None:
    """Where one service alone has the key, it may run before any worker does."""
    assert (await sealing("seal")).code == 0
    assert (sealing.folder / "store" / MARKER).is_file()
    assert "ok      store: identity: archive " in (await sealing("doctor")).stdout
