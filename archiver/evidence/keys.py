"""The keys that sign the ledger: Ed25519, in OpenSSH's files, so that everybody's `ssh-keygen` verifies what they sign."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
import shlex
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from archiver.config.evidence import ORIGIN
from archiver.errors import KeyUnusable

NAMESPACE = "archiver-checkpoint"
"""What a key signs for, so that no signature made for something else counts."""

MAX_KEY_BYTES = 16_384
"""Of a key's file: more is none, with the longest comment."""

_KIND = b"ssh-ed25519"
_BEGIN = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"
_END = b"-----END OPENSSH PRIVATE KEY-----\n"
_MAGIC = b"openssh-key-v1\0"
_PUBLIC = re.compile(r"ssh-ed25519 ([A-Za-z0-9+/]{68})(?: [^\r\n]*)?\n?")
_SIGNERS = re.compile(rf'({ORIGIN.pattern}) namespaces="{NAMESPACE}" (ssh-ed25519 [A-Za-z0-9+/]{{68}})\n')


def ssh_string(value: bytes) -> bytes:
    """As OpenSSH's formats have it: its length, then itself."""
    return struct.pack(">I", len(value)) + value


_PLAIN = _MAGIC + ssh_string(b"none") + ssh_string(b"none") + ssh_string(b"") + struct.pack(">I", 1)
"""What a file begins with that has one key and no passphrase."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half. `raw`: its 32 bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise ValueError("an Ed25519 public key has 32 bytes")

    @classmethod
    def from_openssh(cls, text: str) -> Self:
        """From the line of a .pub file, `ssh-ed25519 AAAA... [comment]`. Raises ValueError for any other."""
        found = _PUBLIC.fullmatch(text)
        blob = base64.b64decode(found[1]) if found is not None else b""
        head = ssh_string(_KIND) + struct.pack(">I", 32)
        if not blob.startswith(head):
            raise ValueError("not the line of an Ed25519 public key, ssh-ed25519 AAAA...")
        return cls(blob.removeprefix(head))

    @property
    def blob(self) -> bytes:
        """As OpenSSH's formats have it."""
        return ssh_string(_KIND) + ssh_string(self.raw)

    @property
    def openssh(self) -> str:
        """The two words of a .pub file, without a comment."""
        return f"{_KIND.decode()} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:...`, as `ssh-keygen -l` writes it."""
        return f"SHA256:{base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip('=')}"

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether this key signed `data`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class SealingKey:
    """A key that signs. Nothing of its secret half is ever shown."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SealingKey({self.public.fingerprint})"

    @classmethod
    def load(cls, path: Path, named: str = "evidence.key_file") -> Self:
        """Read a key's file, which `named` named. Never waits for what is no file. Raises KeyUnusable."""
        refuse = _Refusal(named, path)
        content = _read(path, refuse)
        quoted = shlex.quote(str(path))
        # As strict as `ssh-keygen`: a key that it does not take is of no use to those who look after this one.
        if not content.strip():
            raise refuse("is empty")
        if content.startswith((b"ssh-", b"ecdsa-", b"sk-", b"-----BEGIN PUBLIC", b"---- BEGIN SSH2 PUBLIC")):
            raise refuse("is a public key", hint="name the file of its private key, which has no .pub")
        if b"\r" in content and b"PRIVATE KEY" in content:
            raise refuse("has the line ends of Windows", hint=f"`sed -i 's/\\r$//' {quoted}` mends it")
        if not content.startswith(_BEGIN):
            raise refuse("is no private key of OpenSSH" if b"PRIVATE KEY" in content else "is no key")
        if not content.endswith((_END, _END.rstrip())):
            raise refuse("is no whole key: its last line is missing", hint="bring it back from its copy")
        if _is_encrypted(content):
            # Nobody is there to ask for a passphrase.
            raise refuse("is encrypted", hint=f"`ssh-keygen -p -N '' -f {quoted}` takes its passphrase away")
        try:
            key = load_ssh_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise refuse("is damaged, or a key of another kind than Ed25519", hint="bring it back from its copy") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise refuse("is a key of another kind than Ed25519")
        found = cls(key)
        if not _outer(content).startswith(_PLAIN + ssh_string(found.public.blob)):
            # A flipped bit in the secret half makes another key, which would sign, and which nobody knows.
            raise refuse("is damaged: its halves do not belong together", hint="bring it back from its copy")
        return found

    @classmethod
    def make(cls, path: Path, comment: str = "") -> Self:
        """Make a key and its file, for its owner alone, which must not be there. Raises KeyUnusable."""
        refuse = _Refusal("evidence.key_file", path)
        made = cls(Ed25519PrivateKey.generate())
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise refuse("exists already, and a key is never overwritten", hint="keep it, or name another file") from None
        except (OSError, ValueError) as error:
            raise refuse(f"cannot be written: {_why(error)}", hint="name another file") from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(made._file(comment))
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise refuse(f"cannot be written: {_why(error)}", hint="name another file") from None
        return made

    def sign(self, data: bytes) -> bytes:
        """64 bytes; the same for the same data, always."""
        return self._key.sign(data)

    def _file(self, comment: str) -> bytes:
        """As `ssh-keygen -t ed25519 -N ''` writes it. `cryptography` would do so too, if it kept comments."""
        seed = self._key.private_bytes_raw()
        check = secrets.token_bytes(4)
        inner = check + check + self.public.blob + ssh_string(seed + self.public.raw) + ssh_string(comment.encode())
        inner += bytes(range(1, 1 + -len(inner) % 8))
        return _BEGIN + wrapped(_PLAIN + ssh_string(self.public.blob) + ssh_string(inner)) + _END


def wrapped(content: bytes) -> bytes:
    """Base64 in lines of 70 characters, as OpenSSH writes it."""
    text = base64.b64encode(content)
    return b"".join(text[at : at + 70] + b"\n" for at in range(0, len(text), 70))


def allowed_signers(origin: str, key: PublicKey) -> bytes:
    """The file with which `ssh-keygen -Y verify` knows whose signature counts. Without dates: with them, checkpoints would fail
    to verify one day. Raises ValueError for what is no origin.
    """
    line = f'{origin} namespaces="{NAMESPACE}" {key.openssh}\n'.encode()
    parse_allowed_signers(line)
    return line


def parse_allowed_signers(content: bytes) -> tuple[str, PublicKey]:
    """Origin and key. Raises ValueError for every file that `allowed_signers` would not have written."""
    found = _SIGNERS.fullmatch(content.decode("ascii", "replace"))
    if found is None:
        raise ValueError("not the one line of an allowed_signers file: origin, namespace, Ed25519 key")
    return found[1], PublicKey.from_openssh(found[2])


@dataclass(frozen=True)
class _Refusal:
    """Says what is wrong with a file. Nothing of what the file holds gets into it."""

    named: str
    path: Path

    def __call__(self, what: str, *, hint: str = "bring the key back from its copy") -> KeyUnusable:
        """`hint`: how this key can be used. Where something is sealed already, a key made afresh is of no use in its place."""
        make = "`ssh-keygen -t ed25519 -N '' -f FILE` makes a key"
        when = "" if self.named == "--new" else "only where nothing is sealed yet: "
        return KeyUnusable(f"{self.named}: {self.path} {what}", hint=f"{hint}; {when}{make}")


def _read(path: Path, refuse: _Refusal) -> bytes:
    try:
        # Of a FIFO nobody may ever write into, opening would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise refuse(
            f"cannot be read: {_why(error)}",
            hint="correct the path, let archiver's user read the file, or bring it back from its copy",
        ) from None
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise refuse("is no regular file")
        _check_readers(seen, refuse)
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise refuse(f"cannot be read: {_why(error)}", hint="look after its disk") from None
    finally:
        os.close(descriptor)
    if len(content) > MAX_KEY_BYTES:
        raise refuse(f"is too large for a key: more than {MAX_KEY_BYTES:,} bytes")
    return content


def _check_readers(seen: os.stat_result, refuse: _Refusal) -> None:
    """Who can read the key can forge the ledger. A secret that an orchestrator mounts is root's, and its group's to read."""
    mounted = seen.st_uid == 0 and os.geteuid() != 0
    if not seen.st_mode & (0o037 if mounted else 0o077):
        return
    who = "others than its owner" if not seen.st_mode & 0o007 else "everybody"
    hint = f"`chmod 600 {shlex.quote(str(refuse.path))}`, and if somebody may have read it, `archiver key rotate`"
    if os.geteuid() not in (0, seen.st_uid):
        kubernetes = "in Kubernetes, `defaultMode: 0400` with the pod's `fsGroup`"
        hint = f"where it comes from: give it to uid {os.geteuid()} with mode 400; {kubernetes}"
    raise refuse(f"may be read or changed by {who}", hint=hint)


def _outer(content: bytes) -> bytes:
    """What stands between the lines of a file; empty for what is no base64."""
    try:
        return base64.b64decode(content.removeprefix(_BEGIN).partition(b"-----")[0])
    except ValueError:
        return b""


def _is_encrypted(content: bytes) -> bool:
    outer = _outer(content)
    return outer.startswith(_MAGIC) and not outer.startswith(_MAGIC + ssh_string(b"none"))


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
