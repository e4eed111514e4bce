"""For all tests: prepared data goes to a folder of their own, and no example has to be fast."""

import os

import pytest
from hypothesis import settings

from tunewright_conformance.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]

settings.register_profile("tunewright", deadline=None)  # other work on the machine is no defect
settings.load_profile("tunewright")


@pytest.fixture(autouse=True, scope="session")
def _cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["TUNEWRIGHT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
