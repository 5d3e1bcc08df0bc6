"""What people are told of the evidence, in one line."""

from __future__ import annotations

from typing import Any

from archiver.cli.output import counted, lasting, safe


def evidence_line(evidence: dict[str, Any]) -> str:
    """How far what happened is sealed, of `Standing.as_document`."""
    if not evidence["proven"]:
        return "nothing is proven: nothing is sealed (evidence.key_file names the key; see docs/evidence.md)"
    line = f"sealed: {counted(evidence['entries'], 'entry', 'entries')} of {safe(evidence['origin'])}"
    if evidence["unsealed"]:
        wait = counted(evidence["unsealed"], "waits", "wait")
        line += f"; {wait}, for {lasting(evidence['unsealed_seconds'])}"
    return line + ("; sessions of before the ledger are being adopted" if evidence["adopting"] else "")
