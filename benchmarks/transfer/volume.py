"""Where a run writes: here, or on a file system that is made for it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GIGABYTES = 24


@contextmanager
def volume(folder: Path, kind: str) -> Iterator[Path]:
    """A folder to work in: `folder` itself, or with `ext4` a fresh file system with a journal, in an image inside it (for root).

    What durable files cost depends on the file system more than on the client. One without a journal writes the metadata of each
    file by itself, and has every new file pass by those that were removed within the last minutes: whoever runs later is slower.
    """
    if kind == "here":
        yield folder
        return
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    subprocess.run(["fallocate", "-l", f"{GIGABYTES}G", str(image)], check=True)
    # Nothing is left to be initialised while clients are measured.
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    try:
        mounted.chmod(0o755)
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
