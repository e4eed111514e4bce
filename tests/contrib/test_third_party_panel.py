"""A stranger’s panel: built, installed, found and tested, with nothing of ours that names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flit_core import buildapi

from tunewright import registry

FOLDER = Path(__file__).parents[2] / "contrib/panels/notes"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the panel’s wheel, and nothing else."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)  # a build backend builds what stands in the working directory
        wheel = wheels / buildapi.build_wheel(str(wheels))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    return site


def run(site: Path, *command: str) -> str:
    """The output of a module that is run with this folder on its path. Fails where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONUTF8": "1"}
    command = (sys.executable, "-m", *command)
    done = subprocess.run(
        command, cwd=site, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path) -> None:
    said = run(site, "tunewright", "plugins", "check", "panel:notes")
    assert "1 of 1 plugins can be imported" in said
    assert " passed" in said and "failed" not in said


@pytest.mark.slow
def test_its_own_tests_pass(site: Path) -> None:
    assert "2 passed" in run(
        site, "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider", str(FOLDER / "tests")
    )


def test_it_is_not_installed_otherwise() -> None:
    assert "notes" not in [entry.name for entry in registry.entries("panel")]
