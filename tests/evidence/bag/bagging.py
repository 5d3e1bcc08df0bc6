"""Bags of a small sealed archive, and the four commands that check one without this program."""

from __future__ import annotations

import contextlib
import hashlib
import io
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import bagit
import pytest

from archiver.evidence.bag import verify
from archiver.evidence.bag.choosing import Choice
from archiver.evidence.bag.whole import Export, Exported
from archiver.outcome import Unavailable
from archiver.queue.search import Chosen
from archiver.runtime.buffers import Buffers
from archiver.stores import Store
from tests.evidence.sealing import SealedArchive

ORIGIN = "archive.example/calls"

EVERYTHING = Choice({"all": True}, Chosen())


async def filled(archive: SealedArchive) -> None:
    """Three sessions with four files together, of which one has none, sealed."""
    await archive.begin()
    await archive.end("s-two", files={"a.wav": b"one", "b.FLAC": b"two!", "transcriptions.json": b"{}"}, user_id="ana")
    await archive.end("s-one", files={"a.wav": b"RIFF" + bytes(range(256))})
    await archive.end("s-none", Unavailable("media_unavailable", {"message": "there is none"}))
    await archive.sealer.finish()


async def export(archive: SealedArchive, folder: Path, choice: Choice = EVERYTHING, store: Store | None = None) -> Exported:
    """Hand out sessions of it."""
    return await Export(archive.database, store or archive.store, Buffers(64 * 2**20), "ana@desk").run(folder, choice)


def run(bag: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A command, in the bag's folder."""
    return subprocess.run(arguments, cwd=bag, input=stdin, capture_output=True, timeout=60, check=False)


def verified(bag: Path, *arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess[bytes]:
    """`python3 verify.py`."""
    return run(bag, python, "-B", "verify.py", *arguments)


def sums_hold(bag: Path) -> bool:
    """`sha256sum -c`."""
    return run(bag, "sha256sum", "--quiet", "-c", "manifest-sha256.txt").returncode == 0


def bag_holds(bag: Path) -> bool:
    """`bagit.py --validate`, in this process."""
    try:
        return bool(bagit.Bag(str(bag)).is_valid())
    except (bagit.BagError, UnicodeError, ValueError):
        return False


def signature_holds(bag: Path, origin: str = ORIGIN) -> bool:
    """`ssh-keygen -Y verify`."""
    result = run(
        bag, "ssh-keygen", "-Y", "verify", "-f", "evidence/allowed_signers", "-I", origin, "-n", "archiver-checkpoint",
        "-s", "evidence/checkpoint.sig", stdin=(bag / "evidence/checkpoint").read_bytes(),
    )  # fmt: skip
    return result.returncode == 0


def why_wrong(bag: Path, session: str = "") -> str:
    """What the verify.py of this program says against the bag, or one session of it; empty if nothing. In this process."""
    said = io.StringIO()
    folder = bag / "data" / session
    with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "__file__", str(bag / "verify.py"))
        verify.main([str(folder / "entry.json"), str(folder / "entry.tlog-proof")] if session else [])
    return "".join(line for line in said.getvalue().splitlines() if line.startswith("WRONG"))


def payload(bag: Path) -> dict[str, bytes]:
    """What a bag hands out, by path."""
    return {str(path.relative_to(bag)): path.read_bytes() for path in (bag / "data").rglob("*") if path.is_file()}


def remake_manifests(bag: Path) -> None:
    """As a forger does, who has nothing but the bag."""

    def line(path: Path) -> str:
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(bag)}\n"

    files = sorted((bag / "data").rglob("*"))
    (bag / "manifest-sha256.txt").write_text("".join(line(path) for path in files if path.is_file()))
    tags = [path for path in [*bag.iterdir(), *(bag / "evidence").iterdir()] if path.is_file()]
    tags = sorted(path for path in tags if path.name != "tagmanifest-sha256.txt")
    info = bag / "bag-info.txt"
    octets = sum(path.stat().st_size for path in files if path.is_file())
    lines = [line for line in info.read_text().splitlines() if not line.startswith("Payload-Oxum")]
    info.write_text("\n".join([*lines, f"Payload-Oxum: {octets}.{sum(path.is_file() for path in files)}", ""]))
    (bag / "tagmanifest-sha256.txt").write_text("".join(map(line, tags)))


@asynccontextmanager
async def another_database(postgres: str, template: str) -> AsyncIterator[str]:
    """The URL of one more migrated database, for as long as this."""
    name = f"more_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        yield f"{postgres.rpartition('/')[0]}/{name}"
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()
