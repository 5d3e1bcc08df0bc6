"""What a bag has beside its sessions, and the end of an export: only then is there a bagit.txt."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from archiver.evidence.bag.folder import hash_file, keep_names, move_new, write_new
from archiver.evidence.bag.plan import Plan
from archiver.evidence.bag.tables import ACCOUNT, LOADFILE, MANIFEST
from archiver.evidence.proving import Sealed

BAGIT = "bagit.txt"
BAGIT_TEXT = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
TAGMANIFEST = "tagmanifest-sha256.txt"


@dataclass(frozen=True, slots=True)
class Bag:
    """What its info says. `octets`: bytes of its `payload` files; `files`: those that were recorded."""

    sealed: Sealed
    sessions: int
    files: int
    octets: int
    payload: int
    date: str
    version: str

    def info(self) -> bytes:
        """bag-info.txt."""
        checkpoint = self.sealed.checkpoint
        lines = [
            f"Bag-Software-Agent: archiver {self.version}",
            f"Bagging-Date: {self.date}",
            f"External-Description: call recordings of {checkpoint.origin}, proven by its ledger of {checkpoint.size} entries",
            f"Payload-Oxum: {self.octets}.{self.payload}",
            f"Recorded-Files: {self.files}",
            f"Sessions: {self.sessions}",
        ]
        return "".join(f"{line}\n" for line in lines).encode()


def verifier() -> bytes:
    """verify.py."""
    return _packaged("verify.py")


def guide(sealed: Sealed, *, whole: bool = True) -> bytes:
    """VERIFY.md; not `whole`: of a proof without recordings."""
    text = _packaged("VERIFY.md" if whole else "PROOF.md").decode()
    checkpoint = sealed.checkpoint
    facts = {"ORIGIN": checkpoint.origin, "FINGERPRINT": sealed.key.fingerprint, "SIZE": str(checkpoint.size)}
    for name, value in facts.items():
        text = text.replace(f"@{name}@", value)
    return text.encode()


def _packaged(name: str) -> bytes:
    return resources.files("archiver.evidence.bag").joinpath(name).read_bytes()


def evidence_files(sealed: Sealed) -> dict[str, bytes]:
    """What verifies the checkpoint, by its place."""
    return {
        "evidence/checkpoint": sealed.note,
        "evidence/checkpoint.sig": sealed.signature,
        "evidence/allowed_signers": sealed.signers,
    }


def finish(plan: Plan, bag: Bag, sealed_as: str | None) -> str:
    """Write all that is missing beside the sessions and the tables; the SHA-256 of the tag manifest. Once that is `sealed_as`,
    give all of it its place, bagit.txt last, and the bag is whole. Raises OSError.
    """
    tags = plan.work / "tags"
    small = {
        BAGIT: BAGIT_TEXT,
        "bag-info.txt": bag.info(),
        "VERIFY.md": guide(bag.sealed),
        "verify.py": verifier(),
        **evidence_files(bag.sealed),
    }
    if sealed_as is not None:
        _place(plan, tags, [*small, MANIFEST, LOADFILE, ACCOUNT, TAGMANIFEST])
        return sealed_as
    for name, content in small.items():
        path = tags / name
        path.parent.mkdir(mode=0o750, exist_ok=True)
        path.unlink(missing_ok=True)
        write_new(path, content)
    listed = {name: hashlib.sha256(content).hexdigest() for name, content in small.items()}
    listed |= {name: hash_file(tags / name)[0] for name in (MANIFEST, LOADFILE, ACCOUNT)}
    tagmanifest = "".join(f"{listed[name]}  {name}\n" for name in sorted(listed)).encode()
    (tags / TAGMANIFEST).unlink(missing_ok=True)
    write_new(tags / TAGMANIFEST, tagmanifest)
    keep_names(tags)
    return hashlib.sha256(tagmanifest).hexdigest()


def _place(plan: Plan, tags: Path, names: list[str]) -> None:
    (plan.folder / "data").mkdir(mode=0o750, exist_ok=True)
    (plan.folder / "evidence").mkdir(mode=0o750, exist_ok=True)
    for name in [*(name for name in names if name != BAGIT), BAGIT]:
        target = plan.folder / name
        if name != BAGIT and os.path.lexists(target):  # ours: of an export that was ended in this very moment
            target.unlink()
        move_new(tags / name, target)
        if name == TAGMANIFEST:
            keep_names(plan.folder / "evidence")
    keep_names(plan.folder)
