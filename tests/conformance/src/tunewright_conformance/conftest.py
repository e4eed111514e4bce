"""Fixtures that the tests of several kinds share."""

import pytest

from tunewright_conformance.imports import Imports, observe
from tunewright_conformance.subjects import select


@pytest.fixture(scope="session")
def imports(pytestconfig: pytest.Config) -> Imports:
    """What importing each plugin under test did."""
    return observe([(entry.kind, entry.qualified) for entry in select(pytestconfig.getoption("plugin"))])
