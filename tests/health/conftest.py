"""What the tests of the worker have, too."""

from tests.worker.conftest import logged, plant

__all__ = ["logged", "plant"]
