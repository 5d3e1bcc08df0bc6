"""The keys that seal: which files are keys, and what is said of those that are none."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.errors import KeyUnusable
from archiver.evidence.keys import MAX_KEY_BYTES, PublicKey, SealingKey, allowed_signers, parse_allowed_signers
from tests.programs import installed

ORIGIN = "archive.example/calls"


@pytest.fixture(scope="module")
def ssh_keygen() -> str:
    return installed("ssh-keygen", "openssh-client")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of a key that was made."""
    SealingKey.make(tmp_path / "evidence.key", "of a test")
    return tmp_path / "evidence.key"


def secrets_in(content: bytes) -> list[str]:
    """What of a key's file nobody may see: each of its lines, and any longer word."""
    return re.findall(r"[A-Za-z0-9+/=]{24,}", content.decode("latin-1"))


def refused(path: Path, *words: str, named: str = "evidence.key_file") -> KeyUnusable:
    """The error names what named the file, the file, and the next step; nothing of what the file holds is in it."""
    with pytest.raises(KeyUnusable) as caught:
        SealingKey.load(path, named)
    error = caught.value
    assert error.message.startswith(f"{named}: {path} ")
    assert "`ssh-keygen -t ed25519 -N '' -f FILE` makes" in error.hint
    assert ("only where nothing is sealed yet" in error.hint) == (named == "evidence.key_file")
    assert error.exit_code == 2
    for word in words:
        assert word in f"{error.message}\n{error.hint}"
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.facts)
    if os.path.isfile(path) and path.stat().st_size < 100_000:  # noqa: PTH113  # Path.is_file raises for names too long
        assert not [word for word in secrets_in(path.read_bytes()) if word in told]
    return error


def generated(ssh_keygen: str, path: Path, *options: str, passphrase: str = "") -> Path:
    subprocess.run([ssh_keygen, "-q", "-f", str(path), "-C", "a comment", "-N", passphrase, *options], check=True, timeout=60)
    return path


# --- keys


def test_a_key_that_was_made_is_one_to_everybody(ssh_keygen: str, tmp_path: Path) -> None:
    path = tmp_path / "evidence.key"
    made = SealingKey.make(path, "archiver 2026 ä")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SealingKey.load(path).public == made.public
    assert SealingKey.load(path).sign(b"x") == made.sign(b"x")
    public = subprocess.run([ssh_keygen, "-y", "-f", str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert public.stdout == f"{made.public.openssh} archiver 2026 ä\n"
    assert PublicKey.from_openssh(public.stdout) == made.public
    shown = subprocess.run([ssh_keygen, "-l", "-f", str(path)], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout == f"256 {made.public.fingerprint} archiver 2026 ä (ED25519)\n"


@pytest.mark.parametrize("comment", ["", "a", "ab", "abc", "abcd", "abcde", "abcdef", "abcdefg", "x" * 1_000])
def test_a_key_has_a_comment_of_any_length(tmp_path: Path, comment: str) -> None:
    made = SealingKey.make(tmp_path / "evidence.key", comment)
    assert SealingKey.load(tmp_path / "evidence.key").public == made.public


def test_ssh_keygens_keys_are_keys(ssh_keygen: str, tmp_path: Path) -> None:
    path = generated(ssh_keygen, tmp_path / "a key", "-t", "ed25519")
    key = SealingKey.load(path)
    public = path.with_suffix(".pub").read_text()
    assert PublicKey.from_openssh(public) == key.public
    assert public == f"{key.public.openssh} a comment\n"
    assert key.public.verify(key.sign(b"a checkpoint"), b"a checkpoint")
    path.write_bytes(path.read_bytes().rstrip())
    assert SealingKey.load(path).public == key.public


def test_nothing_secret_is_shown(file: Path) -> None:
    key = SealingKey.load(file)
    assert repr(key) == str(key) == f"SealingKey({key.public.fingerprint})"
    assert not hasattr(key, "__dict__")


def test_a_key_is_never_overwritten(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, words in (
        (file, "exists already, and a key is never overwritten"),
        (tmp_path / "link", "exists already"),
        (tmp_path, "exists already"),
        (tmp_path / "no/folder", "cannot be written: No such file or directory"),
        (file / "below", "cannot be written: Not a directory"),
        (tmp_path / "a\0b", "cannot be written"),
    ):
        with pytest.raises(KeyUnusable, match=words) as caught:
            SealingKey.make(path, "")
        assert caught.value.hint
    assert file.read_bytes() == content
    assert not (tmp_path / "nowhere").exists()


# --- files that are none


def test_a_key_that_others_can_read_is_refused(file: Path) -> None:
    for mode in (0o644, 0o640, 0o620, 0o602, 0o601, 0o604, 0o660, 0o777):
        file.chmod(mode)
        who = "everybody" if mode & 0o007 else "others than its owner"
        refused(file, f"may be read or changed by {who}", f"`chmod 600 {file}`")
    for mode in (0o600, 0o400, 0o700):
        file.chmod(mode)
        SealingKey.load(file)


_AS_NOBODY = """
import os, sys
from pathlib import Path
from archiver.errors import KeyUnusable
from archiver.evidence.keys import SealingKey

folder = os.open(sys.argv[1], os.O_RDONLY)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.fchdir(folder)
for mode in sys.argv[2:]:
    try:
        print(mode, SealingKey.load(Path(mode)).public.fingerprint)
    except KeyUnusable as error:
        print(mode, error.message, error.hint)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mounted secret is root's")
def test_a_mounted_secret_may_be_its_groups(file: Path, tmp_path: Path) -> None:
    """Kubernetes gives it to root and the pod's group, behind two links; Compose mounts the host's file as it is."""
    public = SealingKey.load(file).public
    for name, owner, mode in (("440", 0, 0o440), ("444", 0, 0o444), ("460", 0, 0o460), ("mine", 65534, 0o400),
                              ("mine440", 65534, 0o440), ("others", 1, 0o440)):  # fmt: skip
        secret = tmp_path / "..data" / name
        secret.parent.mkdir(exist_ok=True)
        secret.write_bytes(file.read_bytes())
        os.chown(secret, owner, 65534)
        secret.chmod(mode)
        (tmp_path / name).symlink_to(secret.relative_to(tmp_path))
    tmp_path.chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, str(tmp_path), "440", "444", "460", "mine", "mine440", "others"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert said["440"] == said["mine"] == public.fingerprint, ran
    assert "444 may be read or changed by everybody" in said["444"]
    assert "give it to uid 65534 with mode 400; in Kubernetes, `defaultMode: 0400` with the pod's `fsGroup`" in said["444"]
    assert "460 may be read or changed by others than its owner" in said["460"]
    assert "mine440 may be read or changed by others than its owner `chmod 600 mine440`" in said["mine440"]
    assert "others may be read or changed by others than its owner" in said["others"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("-t", "rsa", "-b", "2048"), "is a key of another kind than Ed25519"),
        (("-t", "ecdsa"), "is a key of another kind than Ed25519"),
        (("-t", "rsa", "-b", "2048", "-m", "PEM"), "is no private key of OpenSSH"),
        (("-t", "ecdsa", "-m", "PKCS8"), "is no private key of OpenSSH"),
    ],
)
def test_keys_of_other_kinds_are_refused(ssh_keygen: str, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    refused(generated(ssh_keygen, tmp_path / "key", *options), told)


def test_a_key_with_a_passphrase_is_refused(ssh_keygen: str, tmp_path: Path) -> None:
    path = generated(ssh_keygen, tmp_path / "a key", "-t", "ed25519", "-a", "1", passphrase="a passphrase")
    error = refused(path, "is encrypted", f"`ssh-keygen -p -N '' -f '{path}'` takes its passphrase away")
    assert "a passphrase" not in error.hint


def test_a_key_of_openssl_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    program = installed("openssl", "openssl")
    subprocess.run([program, "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True, timeout=60, capture_output=True)
    path.chmod(0o600)
    refused(path, "is no private key of OpenSSH")


def test_a_public_key_is_refused(file: Path, tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(f"{SealingKey.load(file).public.openssh} comment\n")
    path.chmod(0o600)
    refused(path, "is a public key", "which has no .pub")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"a password", "is no key"),
        (b"\xff\xfe\x00", "is no key"),
        (bytes(MAX_KEY_BYTES), "is no key"),
        (bytes(MAX_KEY_BYTES + 1), "is too large for a key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n", "is no whole key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n====\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    refused(path, told)


def test_line_ends_of_windows_are_refused_as_ssh_keygen_refuses_them(ssh_keygen: str, file: Path) -> None:
    good = file.read_bytes()
    file.write_bytes(good.replace(b"\n", b"\r\n"))
    theirs = subprocess.run([ssh_keygen, "-y", "-P", "", "-f", str(file)], capture_output=True, check=False, timeout=60)
    assert theirs.returncode
    error = refused(file, "has the line ends of Windows")
    mend = re.search(r"`(sed [^`]+)`", error.hint)
    assert mend is not None
    subprocess.run(mend[1], shell=True, check=True, timeout=60)
    assert file.read_bytes() == good


@pytest.mark.timeout(20)
def test_what_is_no_file_is_never_waited_for(file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "huge").touch(0o600)
    os.truncate(tmp_path / "huge", 2**40)
    for name, target in (("loop", "loop"), ("gone", "nowhere"), ("to fifo", "fifo"), ("to key", file.name)):
        (tmp_path / name).symlink_to(target)
    for name in ("fifo", "to fifo"):
        refused(tmp_path / name, "is no regular file")
    refused(tmp_path, "is no regular file")
    refused(Path("/dev/zero"), "is no regular file")
    refused(tmp_path / "huge", "is too large for a key")
    refused(tmp_path / "gone", "cannot be read: No such file or directory", "correct the path")
    refused(tmp_path / "not there", "cannot be read: No such file or directory", named="--new")
    refused(tmp_path / "loop", "cannot be read: Too many levels of symbolic links")
    refused(file / "below", "cannot be read: Not a directory")
    refused(tmp_path / ("n" * 300), "cannot be read: File name too long")
    refused(tmp_path / "a\0b", "cannot be read")
    with pytest.raises(KeyUnusable, match="cannot be read"):
        SealingKey.load(Path("/proc/self/mem"))  # one that fails while it is read
    assert SealingKey.load(tmp_path / "to key").public == SealingKey.load(file).public


def test_no_bit_of_the_secret_half_may_flip(file: Path) -> None:
    """It would be another key."""
    lines = file.read_bytes().splitlines(keepends=True)
    blob = base64.b64decode(b"".join(lines[1:-1]))
    public = SealingKey.load(file).public
    place = blob.rindex(public.raw) - 1  # the seed's last byte
    assert blob.count(public.raw) == 3
    changed = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
    file.write_bytes(lines[0] + base64.encodebytes(changed) + lines[-1])
    refused(file, "is damaged: its halves do not belong together", "bring it back from its copy")


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_key_is_refused_or_the_same_one(file: Path, data: st.DataObject) -> None:
    """Whatever is changed in its file, no other error comes out, nor a key that signs otherwise."""
    key, good = SealingKey.load(file), file.read_bytes()
    try:
        blob = bytearray(base64.b64decode(b"".join(good.splitlines()[1:-1])))
        for _ in range(data.draw(st.integers(1, 3))):
            blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
        length = data.draw(st.sampled_from([len(blob), data.draw(st.integers(0, len(blob)))]))
        text = base64.encodebytes(blob[:length])
        file.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + text + b"-----END OPENSSH PRIVATE KEY-----\n")
        try:
            found = SealingKey.load(file)
        except KeyUnusable:
            return
        assert found.public == key.public
    finally:
        file.write_bytes(good)


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_between_its_lines_no_other_error_comes_out(file: Path, content: bytes) -> None:
    file.write_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + content + b"\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(KeyUnusable):
        SealingKey.load(file)


# --- public keys


@pytest.mark.parametrize(
    "text",
    [
        "", "ssh-ed25519", "ssh-ed25519 ", "ssh-rsa {key}", "{key}", " ssh-ed25519 {key}", "ssh-ed25519  {key}",
        "ssh-ed25519 {key}=", "ssh-ed25519 {cut}", "ssh-ed25519 {key}\nssh-ed25519 {key}", "ssh-ed25519 {key}\r\n",
        "ssh-ed25519 {key}\n\n", "ssh-ed25519\t{key}", 'command="x" ssh-ed25519 {key}', "ssh-ed25519 {other}", "ssh-ed25519 é",
    ],
)  # fmt: skip
def test_what_is_no_line_of_a_public_key(file: Path, text: str) -> None:
    key = SealingKey.load(file).public.openssh.split()[1]
    other = base64.b64encode(b"\0\0\0\x0bssh-ed25518\0\0\0\x20" + bytes(32)).decode()
    with pytest.raises(ValueError, match="not the line of an Ed25519 public key"):
        PublicKey.from_openssh(text.format(key=key, cut=key[:-4], other=other))


def test_a_signature_is_of_one_key_and_one_text(file: Path, tmp_path: Path) -> None:
    key, other = SealingKey.load(file), SealingKey.make(tmp_path / "other")
    signature = key.sign(b"text")
    assert key.public.verify(signature, b"text")
    assert not key.public.verify(signature, b"text2")
    assert not other.public.verify(signature, b"text")
    for wrong in (b"", signature[:-1], signature + b"\0", bytes(64)):
        assert not key.public.verify(wrong, b"text")
    assert not PublicKey(bytes([2]) + bytes(31)).verify(signature, b"text"), "no point of the curve"
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(31))


def test_allowed_signers_are_one_line(file: Path) -> None:
    key = SealingKey.load(file).public
    line = allowed_signers(ORIGIN, key)
    assert line == f'{ORIGIN} namespaces="archiver-checkpoint" {key.openssh}\n'.encode()
    assert parse_allowed_signers(line) == (ORIGIN, key)
    wrong = [
        b"", line[:-1], line + b"\n", line + line, b" " + line, line.replace(b"\n", b"\r\n"), line.replace(b" ", b"  ", 1),
        line.replace(b"archiver-checkpoint", b"*"), line.replace(b' namespaces="archiver-checkpoint"', b""),
        line.replace(b"\n", b" comment\n"), b"cert-authority " + line, b"*," + line, line.upper(),
        line.replace(b"a", b"\xc3\xa4", 1),
        line.replace(b"ssh-ed25519 ", b'valid-before="20300101" ssh-ed25519 '),
    ]  # fmt: skip
    for each in wrong:
        with pytest.raises(ValueError, match="allowed_signers"):
            parse_allowed_signers(each)
    for place in range(len(line)):
        changed = line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]
        try:
            assert parse_allowed_signers(changed) != (ORIGIN, key)
        except ValueError:
            continue
    for origin in ("", "*", "a b", "A", "!a", "a,b", "a\nb", "a" * 101):
        with pytest.raises(ValueError, match="allowed_signers"):
            allowed_signers(origin, key)
