"""A stranger's panel: built, installed, found and tested, with nothing of ours that names it."""

from pathlib import Path

import pytest

from contrib.strangers import CONTRIB, installed, run, run_own_tests
from tunewright import registry

FOLDER = CONTRIB / "panels/notes"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(FOLDER, tmp_path_factory)


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path) -> None:
    said = run(site, "tunewright", "plugins", "check", "panel:notes")
    assert "1 of 1 plugins can be imported" in said
    assert " passed" in said and "failed" not in said


@pytest.mark.slow
def test_its_own_tests_pass(site: Path) -> None:
    assert "2 passed" in run_own_tests(site, FOLDER)


def test_it_is_not_installed_otherwise() -> None:
    assert "notes" not in [entry.name for entry in registry.entries("panel")]
