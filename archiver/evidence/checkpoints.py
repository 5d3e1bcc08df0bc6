"""Checkpoints: what the ledger was at a size, signed. As a note (C2SP signed-note and tlog-checkpoint), and that note once more
by a detached signature that `ssh-keygen -Y verify` takes. Of each there is one spelling: whatever is read is written again and
compared, since other spellings of base64 and bytes behind the end would verify as well.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass

from archiver.config.evidence import ORIGIN
from archiver.evidence.keys import NAMESPACE, PublicKey, SealingKey, ssh_string, wrapped
from archiver.evidence.merkle import HASH_BYTES

__all__ = ["NAMESPACE", "ORIGIN", "Checkpoint", "SignedCheckpoint", "parse", "sshsig", "verify_sshsig"]

MAX_SIZE = 2**63 - 1
"""Entries that a ledger can have."""

_ED25519 = b"\x01"
"""The kind of key in a note's key ID."""

_DASH = "—".encode()
_NOTE = re.compile(
    rb"(?P<origin>" + ORIGIN.pattern.encode() + rb")\n(?P<size>[1-9][0-9]{0,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
    rb"\n" + _DASH + rb" (?P<name>" + ORIGIN.pattern.encode() + rb") (?P<signature>[A-Za-z0-9+/]{91}=)\n"
)

_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"-----END SSH SIGNATURE-----\n"
_MAGIC = b"SSHSIG"
_HASH = b"sha512"
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root of the first `size` entries of the ledger called `origin`. Raises ValueError for what none can be."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not ORIGIN.fullmatch(self.origin):
            raise ValueError("not the origin of a ledger")
        if not 0 < self.size <= MAX_SIZE:
            raise ValueError("a checkpoint is of at least one entry")
        if len(self.root) != HASH_BYTES:
            raise ValueError(f"a root has {HASH_BYTES} bytes")

    @property
    def text(self) -> bytes:
        """The note's body: what is signed."""
        return b"%s\n%d\n%s\n" % (self.origin.encode(), self.size, base64.b64encode(self.root))

    def signed(self, key: SealingKey) -> bytes:
        """The note, with the one signature of `key`."""
        return self._note(key_id(self.origin, key.public), key.sign(self.text))

    def _note(self, by: bytes, signature: bytes) -> bytes:
        return self.text + b"\n%s %s %s\n" % (_DASH, self.origin.encode(), base64.b64encode(by + signature))


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A note as it was read: who says to have signed it (`name`, `key_id` of 4 bytes) and with what, verified or not."""

    checkpoint: Checkpoint
    name: str
    key_id: bytes
    signature: bytes

    def signed_by(self, key: PublicKey) -> bool:
        """Whether `key` did sign it."""
        return self.key_id == key_id(self.name, key) and key.verify(self.signature, self.checkpoint.text)


def key_id(origin: str, key: PublicKey) -> bytes:
    """By which a note names a key: 4 bytes."""
    return hashlib.sha256(origin.encode() + b"\n" + _ED25519 + key.raw).digest()[:4]


def parse(content: bytes) -> SignedCheckpoint:
    """Read a note. Raises ValueError for all that `Checkpoint.signed` would not have written with some key, to the byte."""
    found = _NOTE.fullmatch(content)
    if found is None:
        raise ValueError("not a checkpoint: origin, size, root and one signature")
    checkpoint = Checkpoint(found["origin"].decode(), int(found["size"]), base64.b64decode(found["root"]))
    signature = base64.b64decode(found["signature"])
    signed = SignedCheckpoint(checkpoint, found["name"].decode(), signature[:4], signature[4:])
    if checkpoint._note(signed.key_id, signed.signature) != content:
        raise ValueError("not the one spelling of a checkpoint: another name at its signature, or other base64")
    return signed


def sshsig(message: bytes, key: SealingKey) -> bytes:
    """The detached signature of `message`, as `ssh-keygen -Y sign -n archiver-checkpoint` writes it (PROTOCOL.sshsig)."""
    digest = hashlib.sha512(message).digest()
    return _armored(key.public, key.sign(_signed_data(digest)))


def verify_sshsig(armored: bytes, message: bytes, key: PublicKey) -> bool:
    """Whether this is, to the byte, what `sshsig` writes for this message and key. Never raises."""
    if len(armored) > 1_000 or not (armored.startswith(_BEGIN) and armored.endswith(_END)):
        return False
    try:
        signature = base64.b64decode(armored.removeprefix(_BEGIN).removesuffix(_END))[-_SIGNATURE_BYTES:]
    except ValueError:
        return False
    return armored == _armored(key, signature) and key.verify(signature, _signed_data(hashlib.sha512(message).digest()))


def _signed_data(digest: bytes) -> bytes:
    return _MAGIC + ssh_string(NAMESPACE.encode()) + ssh_string(b"") + ssh_string(_HASH) + ssh_string(digest)


def _armored(key: PublicKey, signature: bytes) -> bytes:
    version = struct.pack(">I", 1)
    blob = _MAGIC + version + ssh_string(key.blob) + ssh_string(NAMESPACE.encode()) + ssh_string(b"") + ssh_string(_HASH)
    return _BEGIN + wrapped(blob + ssh_string(ssh_string(b"ssh-ed25519") + ssh_string(signature))) + _END
