"""The proof of one session, without its recordings."""

from __future__ import annotations

from pathlib import Path

from archiver.errors import ArchiverError, UsageError
from archiver.evidence.bag.choosing import NOT_SEALED, why_not
from archiver.evidence.bag.folder import keep_names, write_new, writing
from archiver.evidence.bag.plan import ELSEWHERE
from archiver.evidence.bag.session import LeftOut, Proven, check_named, read_proven, small_files
from archiver.evidence.bag.tags import evidence_files, guide, verifier
from archiver.evidence.proving import Proofs, Sealed, read_sealed
from archiver.postgres.database import Database
from archiver.queue.exports import ChosenSession, Exports
from archiver.queue.ledger import Ledger
from archiver.stores import Store


async def prove(database: Database, store: Store, session: ChosenSession) -> tuple[Proven, Sealed]:
    """The session by its newest entry, under the newest checkpoint. Raises NothingSealed, EvidenceError, StoreError;
    ArchiverError where it cannot be proven as it is now.
    """
    ledger, exports = Ledger(database), Exports(database)
    sealed = await read_sealed(ledger, store)
    standing = (await exports.standing([session.queue_id], sealed.checkpoint.size))[session.queue_id]
    why = why_not(session, standing)
    if why is not None or standing.seq is None:
        raise ArchiverError(
            f"session {session.session_id} of {session.bot}: {why or NOT_SEALED}",
            hint="`archiver seal`" if why == NOT_SEALED else f"`archiver show {session.session_id}`",
        )
    proofs = await Proofs.of(exports, store, sealed.checkpoint, await ledger.tiles())
    made = await proofs.prove([standing.seq])
    try:
        proven = await read_proven(store, made[standing.seq])
        check_named(proven, session.bot, session.session_id, session.kind)
    except LeftOut as error:
        raise ArchiverError(f"session {session.session_id} of {session.bot}: {error}", hint="`archiver audit`") from None
    return proven, sealed


def write_proof(folder: Path, proven: Proven, sealed: Sealed) -> None:
    """Write it as a bag has it, into a folder that is not there, or empty. Raises UsageError, ArchiverError."""
    with writing(folder):
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", hint=ELSEWHERE)
        files = {"VERIFY.md": guide(sealed, whole=False), "verify.py": verifier(), **evidence_files(sealed)}
        files |= {f"data/0001/{name}": content for name, content in small_files(proven, sealed.note).items()}
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_new(path, content)
        for place in ("data/0001", "data", "evidence", ""):
            keep_names(folder / place)
