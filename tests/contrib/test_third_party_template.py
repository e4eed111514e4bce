"""A stranger's template: built, installed, found, tested and shown, with nothing of ours that names
it."""

from pathlib import Path

import pytest

from contrib.strangers import CONTRIB, installed, run
from tunewright import registry

FOLDER = CONTRIB / "templates/oasst"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(FOLDER, tmp_path_factory)


def test_it_is_shown(site: Path) -> None:
    said = run(site, "tunewright", "template", "show", "oasst", "--example", "multi")
    assert "<|prompter|>" in said and "<|assistant|>⟦" in said
    assert "<eos_token>⟧" in said


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path) -> None:
    said = run(site, "tunewright", "plugins", "check", "template:oasst")
    assert "1 of 1 plugins can be imported" in said
    assert " passed" in said and "failed" not in said


def test_it_is_not_installed_otherwise() -> None:
    assert "oasst" not in [entry.name for entry in registry.entries("template")]
