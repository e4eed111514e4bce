"""A stranger's template: built, installed, found, tested and shown, with nothing of ours that names
it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flit_core import buildapi

from tunewright import registry

FOLDER = Path(__file__).parents[2] / "contrib/templates/oasst"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the template's wheel, and nothing else."""
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


def tunewright(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tunewright", *arguments]
    return subprocess.run(
        command, cwd=site, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def test_it_is_shown(site: Path) -> None:
    done = tunewright(site, "template", "show", "oasst", "--example", "multi")
    assert done.returncode == 0, done.stderr
    assert "<|prompter|>" in done.stdout and "<|assistant|>⟦" in done.stdout
    assert "<eos_token>⟧" in done.stdout


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path) -> None:
    done = tunewright(site, "plugins", "check", "template:oasst")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 plugins can be imported" in done.stdout
    assert " passed" in done.stdout and "failed" not in done.stdout


def test_it_is_not_installed_otherwise() -> None:
    assert "oasst" not in [entry.name for entry in registry.entries("template")]
