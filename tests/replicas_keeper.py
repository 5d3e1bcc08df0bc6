"""Runs one program of Postgres as the account that it needs, in a process of its own: `python -m tests.replicas_keeper FOLDER
COMMAND...`. The end of standard input is a SIGINT to it, as is the end of this process: whoever started it lets go, or has died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread

from archiver.postgres.embedded.folder import Folder
from archiver.postgres.embedded.privileges import find_account_switch


def main(path: Path, command: list[str]) -> None:
    """Run `command` as the account of this folder, and end with its code."""
    with Folder(path) as folder:
        become = find_account_switch(folder, Path(command[0]).parent)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=become)  # noqa: PLW1509 - there is no thread yet
    ended = Thread(target=lambda: os._exit(program.wait() & 255), daemon=True)
    ended.start()
    sys.stdin.read()
    program.send_signal(signal.SIGINT)
    ended.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
