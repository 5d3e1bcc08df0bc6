"""Sets the clock of a Python process apart: run with this folder on PYTHONPATH, it lives CLOCK_AHEAD_SECONDS ahead (or, negative,
behind) of the machine, from its first line on, in all that asks Python for the time of day.

It is done in Python because nothing else is at hand on every machine: a library to preload needs a compiler, and a time namespace
leaves the time of day alone. `datetime` itself is altered, not replaced by a class like it: what a database or a parser hands out
remains of the one class that there is. The clocks that nobody sets (`time.monotonic`, the event loop's) stay right, as they do on
a machine whose time of day is wrong.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from datetime import datetime, tzinfo

_AHEAD = float(os.environ["CLOCK_AHEAD_SECONDS"])
_time, _time_ns = time.time, time.time_ns


def _now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
    return cls.fromtimestamp(time.time(), tz)


time.time = lambda: _time() + _AHEAD
time.time_ns = lambda: _time_ns() + round(_AHEAD * 1e9)
gc.get_referents(datetime.__dict__)[0]["now"] = classmethod(_now)
ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))
