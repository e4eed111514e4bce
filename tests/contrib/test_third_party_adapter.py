"""Adapter mixture_of_depths as a stranger's: built, installed, found, tested, and trained with."""

from pathlib import Path

import pytest

from contrib.strangers import CONTRIB, installed, run, run_own_tests

FOLDER = CONTRIB / "adapters/mixture_of_depths"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(FOLDER, tmp_path_factory)


@pytest.mark.slow
def test_its_own_tests_pass(site: Path) -> None:
    assert " passed" in run_own_tests(site, FOLDER)


@pytest.mark.long
def test_it_passes_the_conformance_suite(site: Path) -> None:
    said = run(site, "tunewright", "plugins", "check", "adapter:mixture_of_depths")
    assert "1 of 1 plugins can be imported" in said
    assert " passed" in said


@pytest.mark.long
def test_it_is_trained_and_chatted_with(site: Path) -> None:
    recipe = CONTRIB.parent / "docs/examples/quickstart.yaml"
    options = ["output=run", "adapter=mixture_of_depths", "training.max_steps=4"]
    run(site, "tunewright", "train", str(recipe), *options)
    assert (site / "run/model/mixture_of_depths.safetensors").is_file()
    run(site, "tunewright", "chat", "run", "-m", "Who sings?", "--max-new-tokens", "5")
