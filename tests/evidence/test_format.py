"""FORMAT.md is all that an expert has: what it says to run is run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.evidence.documents import format_text, schema_text
from archiver.evidence.entries import ACTORS, EVENTS, KINDS, RESERVED, SAID
from archiver.evidence.fields import Fields
from archiver.evidence.objects import checkpoint_key, segment_key, signature_key, signers_key
from archiver.evidence.sidecar import STATES
from tests.evidence.test_entries import OF_THE_ARCHIVE, sealed
from tests.programs import installed

pytestmark = pytest.mark.once

TEXT = format_text().decode()
ORIGIN = "archive.example.com/calls"
BLOCKS = [
    re.sub(r"^ {7}", "", block, flags=re.MULTILINE)
    for block in re.findall(r"(?:^ {7}.*\n|^\n(?= {7}))+", TEXT, re.MULTILINE)
]  # fmt: skip


def _root(lines: list[bytes]) -> bytes:
    """As RFC 6962 defines it."""
    if len(lines) == 1:
        return hashlib.sha256(b"\0" + lines[0]).digest()
    half = 1 << (len(lines) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _root(lines[:half]) + _root(lines[half:])).digest()


def _put(folder: Path, key: str, content: bytes) -> Path:
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_its_program_computes_the_root(tmp_path: Path) -> None:
    [program] = [block for block in BLOCKS if "import hashlib" in block or "hashlib" in block]
    lines = [sealed().line, *(b"%d" % number for number in range(1, 11))]
    for first, last in ((0, 4), (5, 5), (6, 10)):
        _put(tmp_path, segment_key(first, last), b"".join(line + b"\n" for line in lines[first : last + 1]))

    def run(size: int) -> str:
        command = [sys.executable, "-c", program, str(size)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    for size in (1, 6, 7, 11):
        assert run(size) == base64.b64encode(_root(lines[:size])).decode()
    assert run(12) == "entries are missing"


def test_its_commands_verify_a_checkpoint(tmp_path: Path) -> None:
    installed("ssh-keygen", "openssh-client")

    def run(command: str, check: bool = True) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=check)
        return done.stdout + done.stderr

    run(f"ssh-keygen -q -t ed25519 -N '' -C '{ORIGIN}' -f key")
    public = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    _put(tmp_path, signers_key(1), f'{ORIGIN} namespaces="archiver-checkpoint" {public}\n'.encode())
    checkpoint = _put(tmp_path, checkpoint_key(118), f"{ORIGIN}\n118\nAAAA\n\n— {ORIGIN} AAAA\n".encode())
    run(f"ssh-keygen -q -Y sign -f key -n archiver-checkpoint {checkpoint} && mv {checkpoint}.sig signature")
    _put(tmp_path, signature_key(118), (tmp_path / "signature").read_bytes())
    [commands] = [block for block in BLOCKS if "ssh-keygen" in block]
    for placeholder, value in (("NNNN", "0001"), ("ORIGIN", ORIGIN), ("SIZE", f"{118:012}")):
        commands = commands.replace(placeholder, value)
    said = run(commands)
    assert run("ssh-keygen -l -f key.pub").split()[1] in said
    assert "Good" in said
    checkpoint.write_text("another one\n")
    assert "Good" not in run(commands, check=False)


def test_it_names_everything_that_an_entry_may_hold() -> None:
    section = TEXT.partition("## The fields of an entry")[2].partition("\n## ")[0]
    words = {*EVENTS, *RESERVED, *ACTORS, *KINDS, *STATES, "unknown", "event_given", *json.loads(sealed().line)}
    for event, body in OF_THE_ARCHIVE.items():
        words |= SAID[event](Fields(body, event)).keys()
    assert not {word for word in words if not re.search(rf"\b{word}\b", section)}
    assert len(TEXT.splitlines()) <= 160


def test_every_field_of_a_record_is_explained() -> None:
    schema = json.loads(schema_text())
    objects = [schema, schema["properties"]["files"]["items"]]
    assert schema["properties"].keys() == json.loads(sealed().record or b"").keys()
    for each in objects:
        assert not [name for name, said in each["properties"].items() if "description" not in said]
