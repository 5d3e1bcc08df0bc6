"""`python -m archiver` and the `archiver` command are the same thing."""

from __future__ import annotations

import os
import sys

_ANEW, _WITH_ENCODING = "_ARCHIVER_BEGUN_ANEW", "with PYTHONIOENCODING"
"""Set for the second start: an option of Python's (-X utf8=0) could have it end like the first one."""


def main() -> None:
    """Run the command line; never returns."""
    _insist_on_utf8()
    from archiver.cli.app import run

    run()


def _insist_on_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding: names of files are the same for every worker, and
    there are some that it cannot write. What is printed keeps the encoding of the terminal, and says in escapes what that lacks.
    """
    begun_anew = os.environ.pop(_ANEW, "")
    if begun_anew == _WITH_ENCODING:
        os.environ.pop("PYTHONIOENCODING", None)  # ours: what this program starts has its own
    if begun_anew or sys.getfilesystemencoding() == "utf-8" or sys.flags.utf8_mode:
        return
    environment = {**os.environ, _ANEW: "1"}
    if "PYTHONIOENCODING" not in environment:
        printed = sys.stdout.encoding if sys.stdout is not None else "utf-8"
        environment |= {"PYTHONIOENCODING": f"{printed}:backslashreplace", _ANEW: _WITH_ENCODING}
    os.execve(sys.executable, [sys.executable, "-X", "utf8=1", *sys.orig_argv[1:]], environment)  # noqa: S606  # no shell


if __name__ == "__main__":
    main()
