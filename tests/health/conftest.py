"""What the tests of the worker have, too, and an authority that nobody else trusts."""

from tests.runtime.network.conftest import authority
from tests.worker.conftest import harness, logged

__all__ = ["authority", "harness", "logged"]
