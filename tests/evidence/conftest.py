"""What the tests of one session's way have, too."""

from tests.archive.conftest import trial

__all__ = ["trial"]
