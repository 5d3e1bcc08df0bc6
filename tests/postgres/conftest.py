"""What the queue's tests have, too."""

from tests.queue.conftest import harness

__all__ = ["harness"]
