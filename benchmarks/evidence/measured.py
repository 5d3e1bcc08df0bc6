"""`python -m benchmarks.evidence.measured audit|rebuild DSN STORE KEY`: a process whose memory can be measured."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from benchmarks.evidence.__main__ import audited, rebuilt

asyncio.run({"audit": audited, "rebuild": rebuilt}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
