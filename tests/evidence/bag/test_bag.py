"""What a bag proves without this program, and to whom."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archiver.evidence.bag import verify
from archiver.evidence.checkpoints import Checkpoint, sshsig
from archiver.evidence.keys import SealingKey, parse_allowed_signers
from archiver.evidence.merkle import Tree, leaf_hash
from archiver.evidence.proving import Proof
from tests.evidence.bag.bagging import (
    ORIGIN,
    bag_holds,
    payload,
    remake_manifests,
    run,
    signature_holds,
    sums_hold,
    verified,
    why_wrong,
)


def test_the_commands_of_its_guide_pass_word_for_word(bag: Path) -> None:
    guide = (bag / "VERIFY.md").read_text()
    said = _said_to_whom_follows(bag)
    assert f"-I {ORIGIN} " in guide
    fingerprint = parse_allowed_signers((bag / "evidence/allowed_signers").read_bytes())[1].fingerprint
    assert f"`{fingerprint}`" in guide
    assert f'Good "archiver-checkpoint" signature for {ORIGIN} with ED25519 key {fingerprint}\n' in said
    assert f"signature for {ORIGIN} with ED25519 key SHA256:" in guide
    assert "@" not in re.sub(r"`[^`]*`", "", guide)


def _said_to_whom_follows(bag: Path) -> str:
    guide = (bag / "VERIFY.md").read_text()
    commands = [line.strip() for line in guide.partition("## What is where")[0].splitlines() if line.startswith("    ")]
    assert len(commands) == 6
    bin_folder = Path(sys.executable).parent
    said = b""
    for command in commands:
        result = run(bag, "env", f"PATH={bin_folder}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE=1", "sh", "-c", command)
        assert result.returncode == 0, (command, result)
        said += result.stdout
    return said.decode()


def test_a_key_that_hides_behind_the_genuine_one_is_the_only_one_that_is_seen(bag: Path) -> None:
    """All of a bag is forged, and the signers have the archive's key as well: who follows the guide sees the forger's."""
    genuine = parse_allowed_signers((bag / "evidence/allowed_signers").read_bytes())[1].fingerprint
    key = SealingKey.make(bag.parent / "forger.key", "forger")
    _remake_record(bag / "data/0002", b"another call")
    lines = [_forge_entry(bag / f"data/{name}") for name in ("0001", "0002", "0003")]
    tree = Tree(map(leaf_hash, lines))
    note = Checkpoint(ORIGIN, 3, tree.root()).signed(key)
    for index, line in enumerate(lines):
        proof = Proof(index, line, tuple(tree.inclusion_proof(index))).text(note)
        (bag / f"data/000{index + 1}/entry.tlog-proof").write_bytes(proof)
    (bag / "evidence/checkpoint").write_bytes(note)
    (bag / "evidence/checkpoint.sig").write_bytes(sshsig(note, key))
    _add(bag / "evidence/allowed_signers", f"{ORIGIN} {key.public.openssh}\n".encode())
    remake_manifests(bag)
    said = _said_to_whom_follows(bag)
    assert key.public.fingerprint in said
    assert genuine not in said


def _pythons() -> list[str]:
    found: dict[str, str] = {}
    places = [Path(folder) for folder in os.environ["PATH"].split(":")]
    places += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin"))
    for place in places:
        for path in sorted(place.glob("python3.*")) if place.is_dir() and place.name != "shims" else ():
            if (version := re.fullmatch(r"python(3\.\d+)", path.name)) and int(version[1][2:]) >= 8:
                found.setdefault(version[1], str(path))
    return [found[version] for version in sorted(found)]


@pytest.mark.parametrize("python", _pythons(), ids=lambda path: Path(path).name)
def test_every_python_verifies_it(handed_out: Path, python: str) -> None:
    result = verified(handed_out, python=python)
    assert (result.returncode, result.stderr) == (0, b""), result
    assert result.stdout.startswith(b"3 checked: ")
    assert b"ssh-keygen" in result.stdout
    one = verified(handed_out, "data/0002/entry.json", "data/0002/entry.tlog-proof", python=python)
    assert (one.returncode, one.stdout[:10]) == (0, b"1 checked:"), one


def test_the_verifier_can_be_read(handed_out: Path) -> None:
    code = (handed_out / "verify.py").read_text()
    lines = [line for line in code.splitlines() if line.strip()]
    assert len(lines) <= 110  # of at most 130 characters
    assert max(map(len, lines)) <= 130
    imported = set(re.findall(r"^(?:import|from) ([\w, ]+)", code, re.MULTILINE))
    assert imported == {"sys", "base64, csv, hashlib, json, os, pathlib, re", "typing import Any, List"}


@pytest.mark.parametrize("python", _pythons(), ids=lambda path: Path(path).name)
def test_what_lies_beside_the_verifier_is_not_run(bag: Path, python: str) -> None:
    """Python looks for modules in a program's own folder first."""
    for name in ("__future__", "base64", "hashlib", "json", "os", "pathlib", "re", "sys", "typing", "traceback", "encodings"):
        (bag / f"{name}.py").write_text("print('999 checked: all is well'); raise SystemExit(0)")
    (bag / "data/0002/1.wav").write_bytes(b"another call")
    remake_manifests(bag)
    for options in ([], ["-P"] if python.endswith(("3.11", "3.12", "3.13")) else ["-I"]):
        result = run(bag, python, "-B", *options, "verify.py")
        assert (result.returncode, result.stderr) == (1, b""), result
        lines = result.stdout.splitlines()
        assert [line[:15] for line in lines] == [b"WRONG: '0002': ", b"WRONG: 'bag': '"], lines


def test_a_session_that_was_taken_out_or_is_there_twice_is_missed(bag: Path, tmp_path: Path) -> None:
    """As long as its account was not remade as well: against that stands what the owner handed out."""
    shutil.copytree(bag, tmp_path / "twice")
    shutil.rmtree(bag / "data/0002")
    remake_manifests(bag)
    assert b"account.csv tells of other sessions than data has" in verified(bag).stdout
    twice = tmp_path / "twice"
    shutil.rmtree(twice / "data/0002")
    shutil.copytree(twice / "data/0001", twice / "data/0002")
    remake_manifests(twice)
    assert b"a session is here twice" in verified(twice).stdout
    (twice / "Thumbs.db").write_bytes(b"x")
    assert b"Thumbs.db" in verified(twice).stdout


def _something_fails(bag: Path) -> bool:
    return bool(why_wrong(bag)) or not bag_holds(bag) or not sums_hold(bag) or not signature_holds(bag)


def _flip(path: Path, at: int, bits: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= bits
    path.write_bytes(content)


def test_a_flipped_byte_of_any_file_fails_a_command(bag: Path) -> None:
    assert not _something_fails(bag)
    rng = random.Random(7)
    for path in sorted(path for path in bag.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for at in rng.sample(range(len(content)), min(len(content), 3)):
            _flip(path, at, 1 << rng.randrange(8))
            assert _something_fails(bag), (path, at)
            path.write_bytes(content)
    assert not _something_fails(bag)


@pytest.mark.once
@pytest.mark.thorough
def test_each_flipped_byte_of_each_file_fails_a_command(bag: Path) -> None:
    for path in sorted(path for path in bag.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for at in range(len(content)):
            _flip(path, at, 1 << at % 8)
            assert _something_fails(bag), (path, at)
            path.write_bytes(content)


def test_a_flipped_byte_of_a_session_fails_the_verifier_alone(bag: Path) -> None:
    """Whatever was remade besides: what it says of a session rests on the session's own files and the checkpoint."""
    folder = bag / "data/0001"
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for at in range(0, len(content), 5):
            _flip(path, at, 1 << at // 5 % 8)
            assert why_wrong(bag, "0001"), (path, at)
            path.write_bytes(content)
    for at in range(len((bag / "evidence/checkpoint").read_bytes())):
        _flip(bag / "evidence/checkpoint", at, 1)
        assert why_wrong(bag, "0001")
        _flip(bag / "evidence/checkpoint", at, 1)
    assert not why_wrong(bag)


def _remake_record(folder: Path, audio: bytes) -> None:
    """Other audio, with a record and an entry that say so."""
    (folder / "1.wav").write_bytes(audio)
    record = json.loads((folder / "session.json").read_bytes())
    (file,) = [file for file in record["files"] if file["ordinal"] == 1]
    file["sha256"], file["bytes"] = hashlib.sha256(audio).hexdigest(), len(audio)
    content = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    (folder / "session.json").write_bytes(content)


def test_audio_that_was_swapped_fails_though_all_lists_and_the_record_were_remade(bag: Path) -> None:
    _remake_record(bag / "data/0002", b"another call")
    remake_manifests(bag)
    assert sums_hold(bag)
    assert bag_holds(bag)
    assert signature_holds(bag)
    result = verified(bag)
    assert result.returncode == 1
    assert result.stdout == b"WRONG: '0002': 'session.json is not the record that entry.json names'\n"


def _forge_entry(folder: Path) -> bytes:
    entry = json.loads((folder / "entry.json").read_bytes())
    audio = {file["ordinal"]: file["sha256"] for file in json.loads((folder / "session.json").read_bytes())["files"]}
    entry["record"] = hashlib.sha256((folder / "session.json").read_bytes()).hexdigest()
    entry["files"] = [[place, sha256] for place, sha256 in sorted(audio.items()) if place]
    line = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    (folder / "entry.json").write_bytes(line)
    return line


def test_a_forged_proof_beside_the_genuine_checkpoint_fails(bag: Path) -> None:
    folder = bag / "data/0002"
    _remake_record(folder, b"another call")
    line = _forge_entry(folder)
    remake_manifests(bag)
    assert "the entry is not what the ledger has at this place" in why_wrong(bag)
    # With a tree and a key of the forger's own: the proof holds, and its checkpoint is not the bag's.
    key = SealingKey.make(bag.parent / "forger.key", "forger")
    tree = Tree([leaf_hash(b"x"), leaf_hash(b"y"), leaf_hash(line)])
    note = Checkpoint(ORIGIN, 3, tree.root()).signed(key)
    (folder / "entry.tlog-proof").write_bytes(Proof(2, line, tuple(tree.inclusion_proof(2))).text(note))
    assert "the proof's checkpoint is another one" in why_wrong(bag)
    # And with that in its place the other sessions fail, and so does the signature, until all is forged: then the
    # fingerprint tells.
    (bag / "evidence/checkpoint").write_bytes(note)
    assert not signature_holds(bag)
    (bag / "evidence/checkpoint.sig").write_bytes(sshsig(note, key))
    assert not signature_holds(bag)


def _swap(bag: Path, name: str) -> Any:
    one, other = bag / f"data/0001/{name}", bag / f"data/0002/{name}"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def _empty(bag: Path, *without: str) -> None:
    shutil.rmtree(bag / "data")
    (bag / "data").mkdir()
    for name in without:
        (bag / name).unlink()


def _more_tags(bag: Path) -> None:
    (bag / "evidence/more").write_bytes(b"x")
    remake_manifests(bag)


EDITS: dict[str, Callable[[Path], Any]] = {
    "entries swapped": lambda bag: _swap(bag, "entry.json"),
    "entries and proofs swapped": lambda bag: [_swap(bag, "entry.json"), _swap(bag, "entry.tlog-proof")],
    "audio swapped": lambda bag: _swap(bag, "1.wav"),
    "a file too many": lambda bag: (bag / "data/0002/2.wav").write_bytes(b"x"),
    "a hidden file too many": lambda bag: (bag / "data/0002/.x").write_bytes(b"x"),
    "a folder too many": lambda bag: (bag / "data/0002/more").mkdir(),
    "a file gone": lambda bag: (bag / "data/0001/2.flac").unlink(),
    "transcriptions gone": lambda bag: (bag / "data/0001/transcriptions.json").unlink(),
    "a file renamed": lambda bag: (bag / "data/0002/1.wav").rename(bag / "data/0002/2.wav"),
    "another ending": lambda bag: (bag / "data/0002/1.wav").rename(bag / "data/0002/1.mp3"),
    "a link": lambda bag: _link(bag / "data/0002/1.wav", bag.parent / "elsewhere"),
    "a pipe that nobody writes to": lambda bag: _pipe(bag / "data/0002/session.json"),
    "a record gone": lambda bag: (bag / "data/0003/session.json").unlink(),
    "an entry with a newline": lambda bag: _add(bag / "data/0002/entry.json", b"\n"),
    "a proof with more behind": lambda bag: _add(bag / "data/0002/entry.tlog-proof", b"\n"),
    "a hash too many": lambda bag: _edit(bag, lambda lines: [*lines[:4], lines[3], *lines[4:]]),
    "a hash too few": lambda bag: _edit(bag, lambda lines: [*lines[:3], *lines[4:]]),
    "hashes swapped": lambda bag: _edit(bag, lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]]),
    "an index beyond": lambda bag: _edit(bag, lambda lines: [lines[0], b"index 4", *lines[2:]]),
    "an index with a zero": lambda bag: _edit(bag, lambda lines: [lines[0], b"index 02", *lines[2:]]),
    "a negative index": lambda bag: _edit(bag, lambda lines: [lines[0], b"index -1", *lines[2:]]),
    "an index of many digits": lambda bag: _edit(bag, lambda lines: [lines[0], b"index " + b"9" * 10_000, *lines[2:]]),
    "other base64": lambda bag: _edit(bag, lambda lines: [*lines[:2], _respelt(lines[2]), *lines[3:]]),
    "base64 with white space": lambda bag: _edit(bag, lambda lines: [*lines[:2], lines[2] + b" ", *lines[3:]]),
    "another version": lambda bag: _edit(bag, lambda lines: [b"c2sp.org/tlog-proof@v2", *lines[1:]]),
    "extra data": lambda bag: _edit(bag, lambda lines: [lines[0], b"extra eA==", *lines[1:]]),
    "no proof": lambda bag: (bag / "data/0002/entry.tlog-proof").write_bytes(b""),
    "no entry": lambda bag: (bag / "data/0002/entry.json").write_bytes(b""),
    "no checkpoint": lambda bag: (bag / "evidence/checkpoint").write_bytes(b""),
    "no checkpoint at all": lambda bag: (bag / "evidence/checkpoint").unlink(),
    "an entry that is a list": lambda bag: (bag / "data/0002/entry.json").write_bytes(b"[]"),
    "an entry that is deep": lambda bag: (bag / "data/0002/entry.json").write_bytes(b"[" * 100_000),
    "an entry that is not UTF-8": lambda bag: (bag / "data/0002/entry.json").write_bytes(b"\xff"),
    "a session gone": lambda bag: shutil.rmtree(bag / "data/0003"),
    "a session too many": lambda bag: shutil.copytree(bag / "data/0003", bag / "data/0004"),
    "a load file of others": lambda bag: (bag / "loadfile.csv").write_bytes(b"x"),
    "a file beside": lambda bag: (bag / "more.txt").write_bytes(b"x"),
    "a folder of sessions that is empty": _empty,
    "no sessions, and no lists": lambda bag: _empty(bag, "bagit.txt", "manifest-sha256.txt"),
    "a list of tags that has more": _more_tags,
    "a recording without an end": lambda bag: os.truncate(bag / "data/0002/1.wav", 1 << 43),
    "a record without an end": lambda bag: os.truncate(bag / "data/0002/session.json", 1 << 43),
    "an entry without an end": lambda bag: os.truncate(bag / "data/0002/entry.json", 1 << 43),
    "a proof without an end": lambda bag: os.truncate(bag / "data/0002/entry.tlog-proof", 1 << 43),
    "a list without an end": lambda bag: os.truncate(bag / "tagmanifest-sha256.txt", 1 << 43),
    "another signature": lambda bag: _add(bag / "evidence/checkpoint.sig", b"x"),
}


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _add(path: Path, content: bytes) -> None:
    path.write_bytes(path.read_bytes() + content)


def _edit(bag: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = bag / "data/0002/entry.tlog-proof"
    path.write_bytes(b"\n".join(change(path.read_bytes().split(b"\n"))))


def _respelt(text: bytes) -> bytes:
    """The same 32 bytes: of the last digit before the `=` two bits count for nothing."""
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return text[:-2] + digits[digits.index(text[-2]) ^ 1 :][:1] + b"="


def test_the_verifier_refuses_what_was_edited_in_one_line_each(handed_out: Path, tmp_path: Path) -> None:
    for number, (what, edit) in enumerate(EDITS.items()):
        bag = Path(shutil.copytree(handed_out, tmp_path / f"bag{number}"))
        edit(bag)
        result = verified(bag) if number % 6 == 0 else None
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify, "__file__", str(bag / "verify.py"))
            code = verify.main([])
        assert code == 1, what
        lines = said.getvalue().splitlines()
        assert lines, what
        assert all(line.startswith("WRONG: ") and len(line) < 400 for line in lines), (what, lines)
        if result is not None:
            assert (result.returncode, result.stderr) == (1, b""), (what, result)
            assert result.stdout.decode().splitlines() == lines


@pytest.mark.parametrize("arguments", [["x"], ["a", "b", "c"], ["", ""], ["nowhere/entry.json", "nowhere/entry.tlog-proof"]])
def test_the_verifier_takes_any_arguments(handed_out: Path, arguments: list[str]) -> None:
    result = verified(handed_out, *arguments)
    assert (result.returncode, result.stderr) == (1, b"")
    assert len(result.stdout.splitlines()) == 1


def test_the_bag_is_what_the_library_makes_of_it(handed_out: Path) -> None:
    assert bag_holds(handed_out)
    assert set(payload(handed_out)) == {
        *(f"data/0001/{name}" for name in ("1.wav", "2.flac", "transcriptions.json")),
        "data/0002/1.wav",
        *(f"data/{n}/{name}" for n in ("0001", "0002", "0003") for name in ("session.json", "entry.json", "entry.tlog-proof")),
    }
    assert not (handed_out / ".export").exists()
