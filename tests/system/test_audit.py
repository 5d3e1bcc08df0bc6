"""`audit` as its users meet it: exit codes, what it prints, keys that are trusted, copies, what is accepted."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from archiver.evidence.keys import SealingKey
from archiver.simulator.platform import Simulator
from tests.system.conftest import ESCAPE, Program, archived

ORIGIN = "archive.example/calls"
READ = (
    "archive_queue", "archived_recordings", "archive_migrations",
    "archive_ledger_head", "archive_ledger_outbox", "archive_ledger_batches", "archive_ledger",
)  # fmt: skip
"""What an auditor has to be allowed to read."""


@pytest.fixture
def sealing(archiver: Program, data: dict[str, Any]) -> Program:
    """The program with a key."""
    SealingKey.make(archiver.folder / "evidence.key", "test")
    archiver.configure(data | {"evidence": {"key_file": "evidence.key", "origin": ORIGIN}})
    return archiver


def make_old(path: Path) -> None:
    long_ago = time.time() - 30 * 86400
    os.utime(path, (long_ago, long_ago))


async def test_it_names_what_was_edited_and_ends_with_three(sealing: Program, simulator: Simulator, sql: Any) -> None:
    (await sealing("audit")).refused(2, "nothing is proven", "archiver seal")
    await archived(sealing, simulator, "s-1", "s-2", "s-3")
    clean = await sealing("audit", "--deep")
    assert clean.code == 0, clean
    assert clean.stdout.startswith(f"{ORIGIN}: 4 entries under ")
    assert clean.stdout.endswith("clean: nothing was found\n")
    kept = sealing.folder / "kept.txt"
    kept.write_bytes((await sealing("checkpoint")).stdout.encode().replace(b"\n", b"\r\n") + b"\r\n")

    store = sealing.folder / "store"
    planted = store / f"{ESCAPE}.txt"
    planted.write_bytes(b"x")
    make_old(planted)
    (store / "evidence" / os.fsdecode(b"\xff")).write_bytes(b"x")
    row = await sql.fetchrow("SELECT store_key FROM archived_recordings WHERE session_id = 's-1'")
    (store / row["store_key"]).unlink()
    await sql.execute("UPDATE archive_queue SET user_id = 'eve' WHERE session_id = 's-2'")
    told = await sealing("audit", "--sample", "1/1", "--since-checkpoint", "kept.txt")
    assert told.code == 3
    assert "\nthe ledger begins with the checkpoint that was kept elsewhere, of 4 entries\n" in told.stdout
    assert {line.partition(":")[0] for line in told.stdout.splitlines() if line.count("_")} >= {
        "recording_missing",
        "row_differs",
    }
    assert "unrecorded: nothing knows of this object" in told.stdout
    assert ESCAPE[0] not in told.stdout
    assert "4 findings" in told.stdout
    document = (await sealing("audit", "--json", "--deep")).document
    assert not document["clean"]
    assert [finding["name"] for finding in document["findings"]] == ["row_differs", "recording_missing", *["unrecorded"] * 2]
    assert document["findings"][1]["session_id"] == "s-1"
    assert (document["entries"], document["trust"], document["unsealed"]["rows"]) == (4, "key_file", 0)


async def test_an_auditor_may_read_and_nothing_else(
    sealing: Program, data: dict[str, Any], simulator: Simulator, sql: Any
) -> None:
    await archived(sealing, simulator, "s-1")
    fingerprint = SealingKey.load(sealing.folder / "evidence.key").public.fingerprint
    role = f"auditor_{await sql.fetchval('SELECT current_database()')}"
    await sql.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        await sql.execute(
            f"GRANT SELECT ON {', '.join(READ)} TO {role}; ALTER ROLE {role} SET default_transaction_read_only = on"
        )
        url = f"postgresql://{role}:x@{data['database']['url'].rpartition('@')[2]}"
        sealing.configure(data | {"database": {"url": url}, "evidence": {"trusted": [fingerprint]}})
        result = await sealing("audit", "--deep")
        assert (result.code, result.stdout.splitlines()[-1]) == (0, "clean: nothing was found"), result
        (await sealing("audit", "--accept", "x")).refused(1, "takes no writes")
    finally:
        await sql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_keys_copies_and_objects_that_somebody_answers_for(sealing: Program, simulator: Simulator) -> None:
    await archived(sealing, simulator, "s-1")
    fingerprint = SealingKey.load(sealing.folder / "evidence.key").public.fingerprint
    (sealing.folder / "evidence.key").rename(sealing.folder / "elsewhere.key")
    (await sealing("audit")).refused(2, "evidence.key_file")
    trusting = await sealing("audit", environment={"ARCHIVER_EVIDENCE__TRUSTED": fingerprint})
    assert trusting.code == 0, trusting
    unproven = await sealing("audit", "--json", environment={"ARCHIVER_EVIDENCE__KEY_FILE": ""})
    assert (unproven.code, unproven.document["trust"]) == (3, "none")
    assert [finding["name"] for finding in unproven.document["findings"]] == ["key_unproven"]

    (sealing.folder / "elsewhere.key").rename(sealing.folder / "evidence.key")
    await accepted_and_copied(sealing)


async def accepted_and_copied(sealing: Program) -> None:
    """An object is accepted by its name; a copy may be behind; another archive's store is not audited."""
    store, copy = sealing.folder / "store", sealing.folder / "copy"
    (store / "notes.txt").write_bytes(b"mine")
    make_old(store / "notes.txt")
    (await sealing("audit", "--accept", "other.txt")).refused(2, "other.txt", "archiver audit")
    accepted = await sealing("audit", "--accept", "notes.txt")
    assert (accepted.code, accepted.stdout.startswith("accepted: notes.txt")) == (0, True)
    shutil.copytree(store, copy)
    assert (await sealing("seal")).code == 0
    told = await sealing("audit")
    assert (told.code, "known: noted: notes.txt" in told.stdout) == (0, True)
    behind = await sealing("audit", "--replica", "--json", environment={"ARCHIVER_STORAGE__URL": f"file://{copy}"})
    assert behind.document["replica_lag"] == 1
    (await sealing("audit", "--sample", "2/1")).refused(2, "--sample")
    (await sealing("audit", "--since-checkpoint", "evidence.key")).refused(2, "evidence.key is no checkpoint")
    other = sealing.folder / "other"
    other.mkdir()
    wrong = await sealing("audit", environment={"ARCHIVER_STORAGE__URL": f"file://{other}"})
    wrong.refused(1, "has no archiver-store.json")
