"""Checkpoints and their signatures, held against `ssh-keygen` and `openssl`, and against every byte that could be another."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from archiver.evidence.checkpoints import MAX_SIZE, NAMESPACE, Checkpoint, key_id, parse, sshsig, verify_sshsig
from archiver.evidence.keys import PublicKey, SealingKey, allowed_signers
from archiver.evidence.merkle import EMPTY_ROOT, leaf_hash
from tests.programs import installed

ORIGIN = "archive.example.com/calls"
CHECKPOINT = Checkpoint(ORIGIN, 118, leaf_hash(b"{}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def key(folder: Path) -> SealingKey:
    return SealingKey.make(folder / "evidence.key", "a test")


@pytest.fixture(scope="module")
def other(folder: Path) -> SealingKey:
    return SealingKey.make(folder / "other.key", "a test")


@pytest.fixture(scope="module")
def ssh_keygen() -> str:
    return installed("ssh-keygen", "openssh-client")


def ran(*command: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)


# --- by other hands


@pytest.mark.parametrize("origin", [ORIGIN, "archiver/0123456789abcdef", "a", "0/..//__--", "a" * 100])
def test_ssh_keygen_accepts_what_was_signed(ssh_keygen: str, folder: Path, key: SealingKey, origin: str) -> None:
    note = Checkpoint(origin, MAX_SIZE, EMPTY_ROOT).signed(key)
    signers, signature = folder / "allowed_signers", folder / "signature"
    signers.write_bytes(allowed_signers(origin, key.public))
    signature.write_bytes(sshsig(note, key))
    verify = (ssh_keygen, "-Y", "verify", "-f", str(signers), "-I", origin, "-n", NAMESPACE, "-s", str(signature))
    verified = ran(*verify, given=note)
    assert verified.returncode == 0, verified
    assert verified.stdout.decode() == f'Good "{NAMESPACE}" signature for {origin} with ED25519 key {key.public.fingerprint}\n'
    assert ran(*verify, given=note + b"\n").returncode
    assert ran(*verify[:6], f"{origin}x", *verify[7:], given=note).returncode
    assert ran(*verify[:8], "file", *verify[9:], given=note).returncode


@pytest.mark.parametrize("message", [CHECKPOINT.text, b"", b"\0\xff" * 5_000])
def test_ssh_keygen_signs_to_the_same_bytes(ssh_keygen: str, folder: Path, key: SealingKey, message: bytes) -> None:
    signed = ran(ssh_keygen, "-q", "-Y", "sign", "-f", str(folder / "evidence.key"), "-n", NAMESPACE, given=message)
    assert signed.stdout == sshsig(message, key)
    assert verify_sshsig(signed.stdout, message, key.public)


def test_openssl_accepts_the_notes_signature(folder: Path, key: SealingKey) -> None:
    openssl = installed("openssl", "openssl")
    note = CHECKPOINT.signed(key)
    public, body, signature = folder / "public.der", folder / "body", folder / "raw"
    public.write_bytes(bytes.fromhex("302a300506032b6570032100") + key.public.raw)
    body.write_bytes(note.split(b"\n\n")[0] + b"\n")
    signature.write_bytes(base64.b64decode(note.split(b" ")[-1])[4:])
    verify = (openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-keyform", "DER", "-rawin", "-in", str(body))
    verified = ran(*verify, "-sigfile", str(signature))
    assert verified.returncode == 0, verified
    body.write_bytes(CHECKPOINT.text.replace(b"118", b"119"))
    assert ran(*verify, "-sigfile", str(signature)).returncode


def test_a_note_of_the_specification_is_verified() -> None:
    """The key and the checkpoint of Go's checksum database, as its client has them (sum.golang.org): another origin's form, so
    only its key ID is held against ours.
    """
    name, hashed, encoded = ["sum.golang.org", "033de0ae", "Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"]
    raw = base64.b64decode(encoded)
    assert raw[:1] == b"\x01"
    assert key_id(name, PublicKey(raw[1:])).hex() == hashed


# --- notes


def test_a_note_is_what_the_specification_says(key: SealingKey, other: SealingKey) -> None:
    note = CHECKPOINT.signed(key)
    root = base64.b64encode(CHECKPOINT.root).decode()
    assert CHECKPOINT.text.decode() == f"{ORIGIN}\n118\n{root}\n"
    signature = base64.b64encode(key_id(ORIGIN, key.public) + key.sign(CHECKPOINT.text)).decode()
    assert note.decode() == f"{ORIGIN}\n118\n{root}\n\n— {ORIGIN} {signature}\n"
    signed = parse(note)
    assert (signed.checkpoint, signed.name, signed.key_id) == (CHECKPOINT, ORIGIN, key_id(ORIGIN, key.public))
    assert signed.signature == key.sign(CHECKPOINT.text)
    assert signed.signed_by(key.public)
    assert not signed.signed_by(other.public)
    assert CHECKPOINT.signed(key) == note, "the same bytes, always"


def test_no_byte_of_a_note_may_be_another(key: SealingKey) -> None:
    note = CHECKPOINT.signed(key)
    for place in range(len(note)):
        for bit in range(8):
            assert not counts(note[:place] + bytes([note[place] ^ 1 << bit]) + note[place + 1 :], key)
        assert not counts(note[:place] + note[place + 1 :], key)
        assert not counts(note[:place] + b"\n" + note[place:], key)
        assert not counts(note[:place] + b" " + note[place:], key)
    assert counts(note, key)


def counts(note: bytes, key: SealingKey) -> bool:
    """Whether it is a note, signed by that key."""
    try:
        return parse(note).signed_by(key.public)
    except ValueError:
        return False


@given(st.data())
def test_no_other_note_counts(key: SealingKey, data: st.DataObject) -> None:
    note = CHECKPOINT.signed(key)
    begin = data.draw(st.integers(0, len(note)))
    end = data.draw(st.integers(begin, len(note)))
    changed = note[:begin] + data.draw(st.binary(max_size=5)) + note[end:]
    assert counts(changed, key) == (changed == note)


def test_notes_that_other_readers_would_take_are_refused(key: SealingKey, other: SealingKey) -> None:
    note, second = CHECKPOINT.signed(key), CHECKPOINT.signed(other)
    line, second_line = (each.split(b"\n\n")[1] for each in (note, second))
    signature = line.split(b" ")[-1].strip()
    altered = base64.b64decode(signature)
    for content in (
        b"",
        note[:-1],
        note + b"\n",
        b"\n" + note,
        note + second_line,
        note.replace(line, second_line + line),
        note.replace(b"\n", b"\r\n"),
        note.replace(b"118", b"0118"),
        note.replace(b"118", b"+118"),
        note.replace(b"118", b"0"),
        note.replace(b"118", b"1_18"),
        note.replace(b"118", "١١٨".encode()),
        note.replace(b"118", str(MAX_SIZE + 1).encode()),
        note.replace(b"\n\n", b"\nextension\n\n"),
        note.replace(ORIGIN.encode(), b"Archive"),
        note.replace("— ".encode() + ORIGIN.encode(), "— another".encode()),
        note.replace("—".encode(), b"-"),
        note.replace("—".encode(), "–".encode()),
        note.replace(signature, signature.rstrip(b"=")),
        note.replace(signature, signature.replace(b"=", b"==")),
        note.replace(signature, base64.b64encode(altered + b"\0")),
        note.replace(signature, base64.b64encode(altered[:-1])),
        note.replace(signature, other_spelling(signature)),
        note.replace(base64.b64encode(CHECKPOINT.root), other_spelling(base64.b64encode(CHECKPOINT.root))),
        b"\xef\xbb\xbf" + note,
        b"\xff" * 100_000,
    ):
        assert content != note
        with pytest.raises(ValueError, match=r"not a checkpoint|not the one spelling|at least one entry"):
            parse(content)


def other_spelling(text: bytes) -> bytes:
    """Base64 of the same bytes, with other bits where none count."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet.index(text.rstrip(b"=")[-1])
    changed = text.rstrip(b"=")[:-1] + alphabet[last ^ 1 : (last ^ 1) + 1] + b"="
    assert base64.b64decode(changed) == base64.b64decode(text)
    return changed


@given(
    st.from_regex(r"[a-z0-9][a-z0-9./_-]{0,99}", fullmatch=True), st.integers(1, MAX_SIZE), st.binary(min_size=32, max_size=32)
)
@example("a", MAX_SIZE, bytes(32))
def test_every_checkpoint_is_read_as_it_was(key: SealingKey, origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)
    signed = parse(checkpoint.signed(key))
    assert signed.checkpoint == checkpoint
    assert signed.signed_by(key.public)


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 1, bytes(32)), ("A", 1, bytes(32)), ("a\n", 1, bytes(32)), ("a b", 1, bytes(32)), ("a+b", 1, bytes(32)),
        ("a" * 101, 1, bytes(32)), ("a", 0, EMPTY_ROOT), ("a", -1, bytes(32)), ("a", MAX_SIZE + 1, bytes(32)), ("a", 1, b""),
        ("a", 1, bytes(33)),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(ValueError, match=r"origin|entry|root"):
        Checkpoint(origin, size, root)


# --- detached signatures


def test_no_byte_of_a_signature_may_be_another(key: SealingKey, other: SealingKey) -> None:
    """`ssh-keygen` takes some of these."""
    note = CHECKPOINT.signed(key)
    armored = sshsig(note, key)
    assert verify_sshsig(armored, note, key.public)
    for place in range(len(armored)):
        for bit in range(8):
            changed = armored[:place] + bytes([armored[place] ^ 1 << bit]) + armored[place + 1 :]
            assert not verify_sshsig(changed, note, key.public)
        assert not verify_sshsig(armored[:place] + armored[place + 1 :], note, key.public)
        for added in (b"\n", b" ", b"=", b"A"):
            assert not verify_sshsig(armored[:place] + added + armored[place:], note, key.public)
    for changed in (
        armored + b"\n",
        armored + b"x",
        armored + armored,
        armored.replace(b"\n", b"\r\n"),
        b"",
        armored[:-1],
        b"x" * 2_000,
    ):
        assert not verify_sshsig(changed, note, key.public)
    for place in range(len(note)):
        assert not verify_sshsig(armored, note[:place] + bytes([note[place] ^ 1]) + note[place + 1 :], key.public)
    assert not verify_sshsig(armored, note, other.public)
    assert not verify_sshsig(sshsig(note, other), note, key.public)


def test_a_signature_for_something_else_does_not_count(ssh_keygen: str, folder: Path, key: SealingKey) -> None:
    sign = (ssh_keygen, "-q", "-Y", "sign", "-f", str(folder / "evidence.key"), "-n")
    for options in (("file",), (NAMESPACE, "-O", "hashalg=sha256")):
        signed = ran(*sign, *options, given=CHECKPOINT.text)
        assert signed.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----\n"), signed
        assert not verify_sshsig(signed.stdout, CHECKPOINT.text, key.public)


@given(st.data())
def test_no_other_signature_counts(key: SealingKey, data: st.DataObject) -> None:
    armored = sshsig(CHECKPOINT.text, key)
    begin = data.draw(st.integers(0, len(armored)))
    end = data.draw(st.integers(begin, len(armored)))
    changed = armored[:begin] + data.draw(st.binary(max_size=5)) + armored[end:]
    assert verify_sshsig(changed, CHECKPOINT.text, key.public) == (changed == armored)
