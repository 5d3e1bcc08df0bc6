"""How often Python looks for garbage that refers to itself in circles."""

from __future__ import annotations

import gc

THRESHOLDS = (20_000, 20, 20)
"""Python's own (700, 10, 10) has it look after every second recording, at some twentieth of a worker's processor time."""


def spare_what_stays() -> None:
    """Look less often, and never again through what is there now: modules, settings, connections. For a process that has started
    and will do the same thing many times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
