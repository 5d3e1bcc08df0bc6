"""Whose keys sign the ledger: which is in force where, and whether anything proves that they are the archive's."""

from __future__ import annotations

from collections.abc import Iterable

from archiver.evidence.checkpoints import SignedCheckpoint, parse
from archiver.evidence.keys import PublicKey


class Keys:
    """`in_force`: the one that has to sign the next checkpoint; `signer`: the one that signed the last; `named`: all that entries
    named, in order. `others` are keys that may have signed though no entry says so.
    """

    def __init__(self, others: Iterable[PublicKey], trusted: Iterable[str]) -> None:
        self.in_force: PublicKey | None = None
        self.signer: PublicKey | None = None
        self.named: list[PublicKey] = []
        self.others = list(others)
        self.trusted = frozenset(trusted)
        self.proven = False

    def name(self, key: PublicKey) -> None:
        """An entry names this one: from now on it signs."""
        self.named.append(key)
        self.in_force = key

    def signer_of(self, note: SignedCheckpoint) -> PublicKey | None:
        """Which of them signed a checkpoint."""
        first = [] if self.in_force is None else [self.in_force]
        return next((key for key in [*first, *self.named, *self.others] if note.signed_by(key)), None)

    def signs(self, key: PublicKey) -> str | None:
        """This key signed a checkpoint that is right. What is wrong with that, if something is."""
        self.signer = key
        is_trusted = key.fingerprint in self.trusted
        self.proven |= is_trusted
        if key == self.in_force:
            return None
        before = self.in_force
        if key in self.named:
            return f"signed by {key.fingerprint}, which an entry has replaced"
        self.in_force = key
        if is_trusted:
            return None
        vouched = "no entry names a key" if before is None else f"{before.fingerprint} did not vouch for it"
        return f"signed by {key.fingerprint}, and {vouched}"


def read_note(content: bytes | None) -> SignedCheckpoint | None:
    """A checkpoint, if it is one."""
    try:
        return None if content is None else parse(content)
    except ValueError:
        return None
