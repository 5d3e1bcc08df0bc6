"""`verify` reads every file again, and names each that is not what was recorded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from archiver.simulator.platform import Simulator
from archiver.stores import MARKER
from tests.system.conftest import Program, archived


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
