"""What the tests of several kinds share."""

import gc
import sys

import pytest

from tunewright_conformance.imports import Imports, observe
from tunewright_conformance.subjects import select

_frozen = 0  # how many modules were imported when gc.freeze was called last


def pytest_runtest_setup() -> None:
    """Take what imports made, a million objects, out of the garbage collector's sight: each
    training collects three times, which would take longer than the training."""
    global _frozen
    if len(sys.modules) > _frozen + 100:
        _frozen = len(sys.modules)
        gc.freeze()


@pytest.fixture(scope="session")
def imports(pytestconfig: pytest.Config) -> Imports:
    """What importing each plugin under test did."""
    return observe(
        [(entry.kind, entry.qualified) for entry in select(pytestconfig.getoption("plugin"))]
    )
