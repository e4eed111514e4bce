"""A stranger's distribution: its wheel is built, and installed into a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flit_core import buildapi

CONTRIB = Path(__file__).parents[2] / "contrib"


def installed(folder: Path, factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the wheel of a distribution, and nothing else."""
    wheels, site = factory.mktemp("wheels"), factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # a build backend builds what stands in the working directory
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


def run_own_tests(site: Path, folder: Path) -> str:
    """The output of pytest on a distribution's own tests."""
    settings = ("-q", "-c", os.devnull, "-p", "no:cacheprovider")
    return run(site, "pytest", *settings, str(folder / "tests"))
