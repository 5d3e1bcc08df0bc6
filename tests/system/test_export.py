"""`export`, `proof` and `sums` as their users meet them, and those who never had this program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.system.conftest import ESCAPE, Program, archived

ORIGIN = "archive.example/calls"
READ = (
    "archive_queue", "archive_sessions", "archive_searchable", "archived_recordings", "archive_migrations", "archive_counts",
    "archive_findings", "archive_ledger_head", "archive_ledger_outbox", "archive_ledger_batches", "archive_ledger",
    "archive_ledger_tiles",
)  # fmt: skip
"""What an exporter has to be allowed to read."""


@pytest.fixture
def sealing(archiver: Program, data: dict[str, Any]) -> Program:
    """The program with a key."""
    SealingKey.make(archiver.folder / "evidence.key", "test")
    archiver.configure(data | {"evidence": {"key_file": "evidence.key", "origin": ORIGIN}})
    return archiver


def by_hand(folder: Path, command: str) -> str:
    """What somebody types there who has `sha256sum`, `ssh-keygen`, Python and the library `bagit`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    result = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 0, (command, result)
    return result.stdout


async def test_a_bag_is_handed_out_and_checked_by_hand(sealing: Program, simulator: Simulator) -> None:
    (await sealing("export", "bag", "--all")).refused(2, "nothing is proven", "archiver seal")
    assert not (sealing.folder / "bag").exists()
    simulator.script({"session_id": "s-none", "answers": [{"status": "media_unavailable"}]})
    assert (await sealing("enqueue", "s-none")).code == 0
    await archived(sealing, simulator, "s-1", "s-2")
    (await sealing("export", "bag")).refused(2, "no sessions chosen")
    (await sealing("export", "bag", "--bot", "nobody")).refused(2, "nobody")
    (await sealing("export", "store/bag", "--all")).refused(2, "in the archive's own store")
    done = await sealing("export", "bag", "--state", "archived", "--json")
    assert (done.code, done.document["sessions"], done.document["left_out"]) == (0, 2, 0), done
    bag = sealing.folder / "bag"
    guide = (bag / "VERIFY.md").read_text().partition("## What is where")[0]
    for command in (line.strip() for line in guide.splitlines() if line.startswith("    ")):
        by_hand(bag, command)

    listed = b"session_id,note\ns-1,x\ns-nobody,y\ns-none,z\n"
    told = await sealing("export", "more", "--sessions", "-", "--session", ESCAPE, stdin=listed)
    assert told.code == 3
    assert "s-nobody is not in the bag: no session of this ID" in told.stderr
    assert ESCAPE[0] not in told.stdout + told.stderr
    assert "more: 2 sessions, 1 file, " in told.stdout

    assert (await sealing("seal")).code == 0
    assert (await sealing("audit", "--deep")).code == 0
    events = (await sealing("show", "s-1", "--json")).document["events"]
    handed_out = [event["data"] for event in events if event["event"] == "exported"]
    assert [data["bag"] for data in handed_out] == ["bag", "more"]
    assert handed_out[0]["manifest_sha256"] == done.document["manifest_sha256"]


async def test_a_proof_alone_and_the_sums_of_the_store(sealing: Program, simulator: Simulator) -> None:
    await archived(sealing, simulator, "s-1", "s-2")
    (await sealing("proof", "s-9")).refused(1, 'no session "s-9" was ever enqueued')
    proof = await sealing("proof", "s-1")
    assert proof.code == 0, proof
    commands = [line.strip() for line in proof.stdout.splitlines() if line.startswith("  ")]
    assert len(commands) == 2
    for command in commands:
        by_hand(sealing.folder, command)
    folder = sealing.folder / "s-1.proof"
    for command in (line.strip() for line in (folder / "VERIFY.md").read_text().splitlines() if line.startswith("    ")):
        by_hand(folder, command)
    document = (await sealing("proof", "s-2", "--json", "--output", "two")).document
    assert (document["session_id"], document["index"], document["origin"]) == ("s-2", 2, ORIGIN)

    sums = await sealing("sums", "--output", "SHA256SUMS")
    assert (sums.code, sums.stdout) == (0, ""), sums
    assert by_hand(sealing.folder / "store", "sha256sum -c ../SHA256SUMS").count(": OK") == 2
    assert (await sealing("sums", "--bot", "bot")).stdout == (sealing.folder / "SHA256SUMS").read_text()
    (await sealing("sums", "--output", "SHA256SUMS")).refused(1, "File exists")
    (await sealing("sums", "--output", "store/SHA256SUMS")).refused(2, "in the archive's own store")


async def test_an_exporter_may_read_and_nothing_else(
    sealing: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    await archived(sealing, simulator, "s-1")
    role = f"exporter_{await sql.fetchval('SELECT current_database()')}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        await sql.execute(f"GRANT SELECT ON {', '.join(READ)} TO {role}")
        url = f"postgresql://{role}:x@{data['database']['url'].rpartition('@')[2]}"
        sealing.configure(data | {"database": {"url": url}})
        for number, choice in enumerate((("--session", "s-1"), ("--bot", "bot"))):
            result = await sealing("export", f"bag{number}", *choice)
            assert result.code == 0, result
            assert "note: that it was handed out is not recorded: the database refused: permission denied" in result.stderr
        by_hand(sealing.folder / "bag1", "python3 verify.py")
    finally:
        await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
