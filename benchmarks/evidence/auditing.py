"""`python -m benchmarks.evidence.auditing DSN STORE KEY`: the audit, in a process whose memory can be measured."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.evidence.__main__ import audited

asyncio.run(audited(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
