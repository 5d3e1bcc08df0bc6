"""`archiver audit`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import click

from archiver.cli.amounts import PART
from archiver.cli.app import Incomplete
from archiver.cli.compose import TEXT, actor, opened_database, run_async, settings_of
from archiver.cli.output import console, counted, json_option, lasting, print_json, safe, size
from archiver.cli.progress import counting
from archiver.cli.recognising import check_store
from archiver.cli.sealing import evidence_store
from archiver.config import Settings
from archiver.errors import DatabaseError, KeyUnusable, UsageError
from archiver.evidence.audit.context import Wanted
from archiver.evidence.audit.report import MEANINGS, Report
from archiver.evidence.audit.whole import audit
from archiver.evidence.checkpoints import SignedCheckpoint, parse
from archiver.evidence.keys import PublicKey, SealingKey
from archiver.observe.logs import logger
from archiver.postgres.database import Database
from archiver.queue.ledger import Ledger
from archiver.stores import Store

log = logger(__name__)

MAX_CHECKPOINT = 64 * 1024


@click.command(short_help="Hold the store and the database against the sealed ledger.")
@click.option("--deep", is_flag=True, help="Also read all records and all recordings.")
@click.option("--sample", type=PART, help="Also read this part of the records, others each day.")
@click.option("--since-checkpoint", "since", type=click.Path(path_type=Path, dir_okay=False, exists=True), metavar="FILE",
              help="Hold the ledger against a checkpoint that was kept elsewhere.")  # fmt: skip
@click.option("--replica", is_flag=True, help="The store is a copy, which may be behind.")
@click.option("--accept", "accepted", type=TEXT, metavar="KEY", help="Answer for an object that nobody recorded.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    deep: bool,
    sample: Fraction | None,
    since: Path | None,
    replica: bool,
    accepted: str | None,
    as_json: bool,
) -> None:
    """Hold the store and the database against the sealed ledger: all of its entries, every checkpoint and signature, each
    session's row, the keys and lengths of all objects. Changes nothing. Notes are kept in TMPDIR meanwhile, about a kilobyte a
    session.

    With --accept nothing else is done: the hash of that object is entered into the ledger with your name, and it is no finding
    any more.

    Exit codes: 0 nothing was found; 1 fatal; 2 configuration, or nothing is sealed; 3 findings.
    """
    settings = settings_of(ctx)
    note = None if since is None else _read_checkpoint(since)
    wanted = Wanted(
        settings.storage.path,
        settings.evidence.patience,
        deep=deep,
        sample=sample,
        since=note,
        replica=replica,
        key=public_key(settings),
        trusted=frozenset(settings.evidence.trusted),
        asked=accepted,
    )
    report = run_async(_audit(settings, wanted, quiet=as_json))
    if accepted is not None:
        if as_json:
            print_json({"accepted": accepted})
        else:
            console().print(f"accepted: {safe(accepted)}; it is entered when the next batch is sealed", soft_wrap=True)
        return
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    if not report.clean:
        raise Incomplete


def _read_checkpoint(file: Path) -> SignedCheckpoint:
    """What somebody kept, perhaps in a mail: line ends may be others, and empty lines around it. Raises UsageError."""
    try:
        with file.open("rb") as opened_file:
            content = opened_file.read(MAX_CHECKPOINT)
        return parse(content.replace(b"\r\n", b"\n").strip() + b"\n")
    except OSError as error:
        raise UsageError(f"--since-checkpoint: {file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(
            f"--since-checkpoint: {file} is no checkpoint",
            hint="only the five lines that `archiver checkpoint` prints, nothing else of a mail: origin, size, root, an empty "
            "line, the signature",
        ) from None


def public_key(settings: Settings) -> PublicKey | None:
    """Of the key that seals here. Whoever may not read it can do with fingerprints. Raises KeyUnusable."""
    if settings.evidence.key_file is None:
        return None
    try:
        return SealingKey.load(settings.evidence.key_file).public
    except KeyUnusable as error:
        if not settings.evidence.trusted:
            raise
        click.echo(f"note: {error.message}; evidence.trusted alone says which keys are right", err=True)
        return None


async def _audit(settings: Settings, wanted: Wanted, *, quiet: bool) -> Report:
    writes = wanted.asked is not None
    async with opened_database(settings, writes=writes) as database, evidence_store(settings) as store:
        await _recognise(settings, database, store)
        with counting("audit", quiet=quiet) as on_progress:
            report = await audit(database, store, wanted, on_progress)
        if wanted.asked is not None:
            await _accept(database, wanted.asked, report)
    return report


async def _recognise(settings: Settings, database: Database, store: Store) -> None:
    try:
        await check_store(settings, database, store)
    except DatabaseError:  # an auditor who may read the archive's tables, and not this one
        log.info("store_not_recognised", hint="grant SELECT on archive_identity to this role")


async def _accept(database: Database, key: str, report: Report) -> None:
    if report.asked is None:
        raise UsageError(
            f"{key} is no object that nobody recorded: there is none, or it is recorded, or younger than evidence.patience",
            hint="`archiver audit` names those that can be accepted: unrecorded",
        )
    sha256, length = report.asked
    await Ledger(database).note("noted", {"object_sha256": sha256, "bytes": length, "by": actor()})


def _print(report: Report) -> None:
    out = console()

    def line(text: str) -> None:
        out.print(text, soft_wrap=True)

    line(
        f"{safe(report.origin)}: {counted(report.entries, 'entry', 'entries')} "
        f"under {counted(report.checkpoints, 'checkpoint')}, {counted(report.sessions, 'session')}, "
        f"{counted(report.files, 'recorded file')}, {counted(report.objects, 'object')}"
    )
    what = "all of them" if report.deep else f"a sample of {report.sampled}, and the newest" if report.sampled else "the newest"
    line(f"records read: {report.records_read:,} ({what}); recordings read: {'all' if report.deep else 'none'}; "
         f"{size(report.bytes_read)}")  # fmt: skip
    if report.checkpoint is not None:
        line(f"newest checkpoint: {counted(report.checkpoint['size'], 'entry', 'entries')}; keys: {', '.join(report.keys)}")
    if report.since is not None:
        line(f"the ledger begins with the checkpoint that was kept elsewhere, of {counted(report.since, 'entry', 'entries')}")
    for count, text in (
        (report.unsealed_rows, f"wait to be sealed, the first for {lasting(report.unsealed_seconds)}"),
        (report.to_adopt, "sessions ended before the ledger began, and are still to be adopted"),
        (report.pending_objects, "objects not recorded yet: of sessions that wait, or younger than evidence.patience"),
        (report.quarantined, "objects lie in quarantine"),
        (report.unfinished, "hidden or unfinished objects"),
        (report.replica_lag or 0, "entries behind: this copy of the store does not have them yet"),
        (report.reserved, "entries say what later versions of the program know of"),
    ):
        if count:
            line(f"{count:,} {text}")
    if report.versions_unseen:
        line("not seen: overwritten and deleted versions of objects, whose list this bucket does not permit")
    for known in report.findings.known:
        line(f"known: {known.name}: {safe(known.key or '')}{': ' if known.key else ''}{safe(known.message)}")
    if report.findings.known_more:
        line(f"known: {report.findings.known_more:,} more")
    for name, (meaning, hint) in MEANINGS.items():
        if report.findings.counts[name]:
            line(f"{name}: {meaning}")
            for finding in report.findings.of(name):
                session = f"{finding.session_id} of {finding.bot}" if finding.session_id is not None else ""
                whose = ", ".join(filter(None, (finding.key, session)))
                line(f"  {safe(whose)}{': ' if whose else ''}{safe(finding.message)}")
            more = report.findings.counts[name] - len(report.findings.of(name))
            if more:
                line(f"  and {more:,} more")
            line(f"  next: {hint}")
    total = report.findings.counts.total()
    known_already = len(report.findings.known) + report.findings.known_more
    but = f" but what is known already ({known_already:,})" if known_already else ""
    line(f"clean: nothing was found{but}" if report.clean else counted(total, "finding"))
