"""Keeps a server running for as long as some process of the test run needs it, also when those processes are killed.

Whoever needs the server holds a shared lock on a file. This process, which started it, waits for the exclusive one.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread


def main(folder: Path, command: list[str]) -> None:
    """Run `command` in `folder` until nobody holds the lock any more."""
    with (folder / "users.lock").open("a") as users, (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        Thread(target=_end_with, args=(server,), daemon=True).start()
        fcntl.flock(users, fcntl.LOCK_EX)
        # Whoever comes now waits for the lock, and then finds that there is none to join.
        (folder / "url").unlink(missing_ok=True)
        server.kill()
        server.wait()


def _end_with(server: subprocess.Popen[bytes]) -> None:
    """A server that ends by itself ends its keeper, and so is not waited for."""
    server.wait()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
