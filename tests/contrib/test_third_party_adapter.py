"""Adapter mixture_of_depths as a stranger's: built, installed, found, tested, and trained with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flit_core import buildapi

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "contrib/adapters/mixture_of_depths"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the adapter's wheel, and nothing else."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)  # a build backend builds what stands in the working directory
        wheel = wheels / buildapi.build_wheel(str(wheels))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    more = ["--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run([*pip, *more], check=True)
    return site


def run(site: Path, *command: str) -> str:
    """The output of a module that is run with this folder on its path. Fails where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONUTF8": "1"}
    done = subprocess.run(
        (sys.executable, "-m", *command),
        cwd=site,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_its_own_tests_pass(site: Path) -> None:
    said = run(
        site, "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", str(FOLDER / "tests")
    )
    assert " passed" in said


@pytest.mark.long
def test_it_passes_the_conformance_suite(site: Path) -> None:
    said = run(site, "tunewright", "plugins", "check", "adapter:mixture_of_depths")
    assert "1 of 1 plugins can be imported" in said
    assert " passed" in said


@pytest.mark.long
def test_it_is_trained_and_chatted_with(site: Path) -> None:
    recipe = ROOT / "docs/examples/quickstart.yaml"
    options = ["output=run", "adapter=mixture_of_depths", "training.max_steps=4"]
    run(site, "tunewright", "train", str(recipe), *options)
    assert (site / "run/model/mixture_of_depths.safetensors").is_file()
    run(site, "tunewright", "chat", "run", "-m", "Who sings?", "--max-new-tokens", "5")
