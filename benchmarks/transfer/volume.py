"""Where a run writes: here, or on a file system that is made for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

KINDS = ("here", "ext4", "ext4-memory")
GIGABYTES = {"ext4": 24, "ext4-memory": 9}


@contextmanager
def volume(folder: Path, kind: str) -> Iterator[Path]:
    """A folder to work in: `folder` itself, or a fresh file system with a journal, in an image on its disk (`ext4`) or in memory
    (`ext4-memory`: a device that answers at once, so that it is the clients that are measured). For root.

    What durable files cost depends on the file system more than on the client. One without a journal, as some virtual machines
    have, writes the metadata of each file by itself, and has every new file pass by those that were removed within the last
    minutes: whoever runs later is slower.
    """
    if kind == "here":
        yield folder
        return
    with ExitStack() as stack:
        place = folder / "image"
        place.mkdir()
        if kind == "ext4-memory":
            stack.enter_context(_mounted(["-t", "tmpfs", "-o", f"size={GIGABYTES[kind]}G", "tmpfs"], place))
        image = place / "ext4"
        with image.open("wb") as file:
            file.truncate(GIGABYTES[kind] * 10**9)
        # Nothing is left to be initialised while clients are measured.
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
        work = folder / "work"
        work.mkdir()
        stack.enter_context(_mounted(["-o", "loop", str(image)], work))
        work.chmod(0o755)
        yield work


@contextmanager
def _mounted(what: list[str], where: Path) -> Iterator[None]:
    subprocess.run(["mount", *what, str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)
