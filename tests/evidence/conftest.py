"""What the tests of one session's way have, too."""

from tests.archive.conftest import harness

__all__ = ["harness"]
