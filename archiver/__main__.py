"""`python -m archiver` and the `archiver` command are the same thing."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; never returns."""
    _insist_on_utf8()
    from archiver.cli.app import run

    run()


def _insist_on_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding: names of files are the same for every worker, and
    there are some that it cannot write. What is printed keeps the encoding of the terminal, and says in escapes what that lacks.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    printed = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    environment = {"PYTHONIOENCODING": f"{printed}:backslashreplace", **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606  # no shell is wanted


if __name__ == "__main__":
    main()
