"""What the queue's tests have, too."""

from tests.queue.conftest import bench

__all__ = ["bench"]
