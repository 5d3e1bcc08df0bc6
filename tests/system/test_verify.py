"""`verify` reads every file again, and names each that is not what was recorded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.system.conftest import Program, archived, eventually


async def test_verify_names_every_file_that_is_not_what_was_recorded(archiver: Program, simulator: Simulator, sql: Any) -> None:
    ids = ["deleted", "cut", "altered", "swapped1", "swapped2", "whole"]
    await archived(archiver, simulator, *ids)
    rows = await sql.fetch("SELECT session_id, store_key, bytes, sha256 FROM archived_recordings")
    keys = {row["session_id"]: row["store_key"] for row in rows}
    (lost,) = (f"recorded {row['bytes']} bytes {row['sha256']}" for row in rows if row["session_id"] == "deleted")
    paths = {name: archiver.folder / "store" / key for name, key in keys.items()}
    good = await archiver("verify")
    assert (good.code, good.stdout.startswith("6 of 6 files equal")) == (0, True)

    paths["deleted"].unlink()
    os.truncate(paths["cut"], 100)
    body = bytearray(paths["altered"].read_bytes())
    body[1000] ^= 1
    paths["altered"].write_bytes(body)
    _swap(paths["swapped1"], paths["swapped2"])

    told, document = await archiver("verify"), await archiver("verify", "--json")

    assert told.code == document.code == 3
    assert {finding["store_key"]: finding["verdict"] for finding in document.document["findings"]} == {
        keys[name]: "missing" if name == "deleted" else "changed" for name in ids if name != "whole"
    }
    assert (document.document["files"], document.document["equal"]) == (6, 1)
    lines = told.stdout.splitlines()
    assert all(any(keys[name] in line for line in lines[:-1]) == (name != "whole") for name in ids)
    assert f"missing: {keys['deleted']}: {lost}" in lines
    assert lines[-1].startswith("1 of 6 files equal")


async def test_what_was_found_wrong_stays_in_sight_until_it_is_mended_or_accepted(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    await archived(archiver, simulator, "lost", "other", "whole")
    rows = await sql.fetch("SELECT session_id, store_key FROM archived_recordings")
    paths = {row["session_id"]: archiver.folder / "store" / row["store_key"] for row in rows}
    paths["lost"].unlink()
    assert (await archiver("verify")).code == 3

    told, checked, opened = await asyncio.gather(
        archiver("status"), archiver("doctor", "--json"), archiver("list", "--open", "--format", "jsonl")
    )
    assert "damaged: 1 session has files that were found wrong, and nobody mended or accepted them; next: `archiver repair" in (
        " ".join(told.stdout.split())
    )
    doctor = {each["check"]: each for each in checked.document["findings"]}["verify"]
    assert (doctor["verdict"], "`archiver list --open`" in doctor["hint"]) == ("warning", True)
    (listed,) = [json.loads(line) for line in opened.stdout.splitlines()]
    assert (listed["session_id"], listed["state"], listed["reason"]) == ("lost", "archived", "file_missing")
    # A sample that does not come to it.
    await sql.execute("UPDATE archived_recordings SET verified_at = now() WHERE session_id = 'lost'")
    again = await archiver("verify", "--sample", "1/3")
    assert (again.code, again.stdout.split(",")[0]) == (3, "1 of 1 files equal")
    assert "nothing new was found; 1 session has files that were found wrong, and nobody mended or accepted them" in again.stderr
    assert "next: `archiver repair --dry-run` says which of it can be tried; `archiver list --open`" in again.stderr

    assert (await archiver("accept", "lost", "--reason", "no backup has it")).stdout == "1 accepted\n"
    accepted = await archiver("verify", "--json")
    assert (accepted.code, accepted.document["files"], accepted.document["equal"]) == (0, 3, 2)
    assert (accepted.document["new"], accepted.document["damaged"]) == (0, {"open": 0, "accepted": 1})
    assert (await archiver("list", "--open")).stdout == "no session found\n"

    os.truncate(paths["other"], 100)
    found = await archiver("verify")
    assert (found.code, "nothing new" in found.stderr, "1 session has files" in found.stderr) == (3, False, True)
    status, opened, accepted = await asyncio.gather(
        archiver("status", "--json"), archiver("list", "--open"), archiver("list", "--accepted")
    )
    assert status.document["damaged"] == {"open": 1, "accepted": 1}
    assert "archived: changed" in opened.stdout
    assert "archived: file_missing (accepted)" in accepted.stdout


def _swap(one: Path, other: Path) -> None:
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


async def test_verify_names_what_is_no_file_and_waits_for_none(archiver: Program, simulator: Simulator) -> None:
    names = ["device", "fifo", "folder", "link", "well"]
    await archived(archiver, simulator, *names)
    root = archiver.folder / "store"
    files = {path.parents[1].name: path for path in root.rglob("*.wav")}
    copy = archiver.folder / "copy.wav"
    copy.write_bytes(files["link"].read_bytes())
    for name in ("fifo", "link", "device"):
        files[name].unlink()
    os.mkfifo(files["fifo"])
    files["link"].symlink_to(copy)
    files["device"].symlink_to("/dev/zero")
    files["folder"].parents[1].rename(archiver.folder / "elsewhere")
    files["folder"].parents[1].symlink_to(archiver.folder / "elsewhere")

    verified = await archiver("verify", "--json")

    assert (verified.code, verified.document["files"], verified.document["equal"]) == (3, 5, 1)
    found = {one["session_id"]: one for one in verified.document["findings"]}
    assert {name: one["verdict"] for name, one in found.items()} == {
        "device": "not_a_regular_file", "fifo": "not_a_regular_file", "link": "not_a_regular_file", "folder": "unreadable",
    }  # fmt: skip
    assert "is a FIFO, not a regular file" in found["fifo"]["message"]
    assert "/folder is a symbolic link" in found["folder"]["message"]
    told = await archiver("verify")
    assert told.code == 3
    assert f"not_a_regular_file: {files['fifo'].relative_to(root)}" in told.stdout


async def test_what_is_not_kept_for_a_strange_store_is_said_of_the_store(archiver: Program, simulator: Simulator) -> None:
    """Its marker is gone: nothing is wrong with the database."""
    await archived(archiver, simulator, "s1")
    (archiver.folder / "store" / MARKER).unlink()
    result = await archiver("verify")
    assert "what was found is not kept for `archiver repair`: this is not known to be the archive's store" in result.stderr
    assert "takes no writes" not in result.stderr


async def test_a_verify_that_is_stopped_says_how_it_goes_on(archiver: Program, simulator: Simulator, sql: Any) -> None:
    ids = [f"s-{number}" for number in range(6)]
    await archived(archiver, simulator, *ids)
    keys = [
        row["store_key"] for row in await sql.fetch("SELECT store_key FROM archived_recordings ORDER BY archived_at, queue_id")
    ]
    (archiver.folder / "store" / keys[0]).unlink()
    # Three quarters of a minute of reading, by and by.
    running = await archiver.start("verify", "--kind", "recording", "--jobs", "1", "--max-bandwidth", "4KB")

    async def named() -> bool:
        return "missing: " in running.stdout

    await eventually(named)
    running.send(signal.SIGINT)
    ended = await running.ended()
    assert ended.code == 130
    told = ended.stdout.splitlines()[-1]
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("stopped: ")]
    command = line.split("`")[1]
    read = await sql.fetchval("SELECT count(*) FROM archived_recordings WHERE verified_at IS NOT NULL")
    assert told.startswith(f"{read - 1} of {read} files equal")
    assert 1 <= read < 6
    rest = await archiver.shell(command.replace(" --max-bandwidth 4000B", ""))
    assert (rest.code, rest.stdout.splitlines()[-1].split(",")[0]) == (3, f"{6 - read} of {6 - read} files equal")
    assert "nothing new was found; 1 session has files that were found wrong" in rest.stderr
    status = await archiver("status", "--json")
    assert 0 <= status.document["oldest_verification"]["seconds"] < 600
    document = await archiver("verify", "--json", "--sample", "1/3", "--key", keys[0].rpartition("/s-")[0])
    assert (document.code, document.document["files"], document.document["goes_on"]) == (3, 2, None)


@pytest.mark.thorough
async def test_a_verify_that_is_killed_has_lost_some_seconds_of_its_work(
    archiver: Program, simulator: Simulator, sql: Any
) -> None:
    await archived(archiver, simulator, *(f"s-{number}" for number in range(12)))
    began = await sql.fetchval("SELECT now()")
    running = await archiver.start("verify", "--jobs", "1", "--max-bandwidth", "32KB")

    async def some() -> int | None:
        return await sql.fetchval("SELECT count(*) FROM archived_recordings WHERE verified_at IS NOT NULL") or None

    await eventually(some)
    running.send(signal.SIGKILL)
    await running.ended()
    read = await some() or 0
    assert 0 < read < 12
    rest = await archiver("verify", "--older-than", began.isoformat(), "--json")
    assert (rest.code, rest.document["files"], rest.document["equal"]) == (0, 12 - read, 12 - read)
