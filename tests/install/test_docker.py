"""The Dockerfile is linted, and its steps run in a plain environment. No image is built here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from install.local_index import Place
from workspace.members import ROOT, members

FILE = ROOT / "docker/Dockerfile"
TEXT = FILE.read_text("utf-8")


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, file], capture_output=True, text=True, check=False)


def test_the_dockerfile_is_linted(tmp_path: Path) -> None:
    done = lint(FILE)
    assert (done.returncode, done.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text(TEXT.replace("python:3.11-slim-bookworm", "python:latest"))
    assert "DL3007" in lint(bad).stdout


def test_every_image_runs_as_a_user_and_begins_with_the_command() -> None:
    base, cpu, cuda = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
    assert "useradd" in base
    for target in (cpu, cuda):
        assert "\nUSER 1000\n" in target
        assert 'ENTRYPOINT ["tunewright"]' in target
        assert re.search(r"install-tunewright \"\$BUNDLE\" /wheels$", target, re.MULTILINE)


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    """A .git, a token in a home folder or data must not come into an image."""
    ignored, *kept = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert ignored == "*"
    copied = re.findall(r"^COPY (\S+)", TEXT, re.MULTILINE)
    mounted = re.findall(r"source=(\w+)", TEXT)
    assert kept == ["!dist/*.whl", *(f"!{name}" for name in copied)]
    assert set(mounted) == {"dist"}


def test_bundles_are_those_of_the_kernel() -> None:
    (said,) = re.findall(r"^# BUNDLE is what is installed: (.+)\.$", TEXT, re.MULTILINE)
    assert re.findall(r"\w+", said.replace(" or ", ", ")) == list(
        members()[0].project["optional-dependencies"]
    )


@pytest.mark.slow
@pytest.mark.long
def test_the_steps_install_the_bundle(place: Place, dists: Path, tmp_path: Path) -> None:
    """install.sh, with the local index in the place of PyPI."""
    place.install("pip")
    env = {
        **os.environ,
        "PATH": f"{place.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(place.index),
        "PIP_CONFIG_FILE": os.devnull,
    }
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"):
        env.pop(name, None)
    command = ["bash", ROOT / "docker/install.sh", "serve", dists]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "plugins can be imported" in done.stdout
