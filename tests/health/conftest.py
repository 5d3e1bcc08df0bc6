"""What the tests of the worker have, too."""

from tests.worker.conftest import harness, logged

__all__ = ["harness", "logged"]
