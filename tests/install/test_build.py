"""`scripts/dev.py build`: every distribution, checked; each check can fail."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from workspace.members import ROOT, members, script

VERSION = members()[0].project["version"]
QWEN = ROOT / "plugins/families/qwen"


@pytest.mark.slow
def test_every_member_has_a_wheel_and_an_sdist_with_their_sums(dists: Path) -> None:
    names = {file.name for file in dists.iterdir()}
    stems = {f"{member.package}-{VERSION}" for member in members()}
    wheels = {f"{stem}-py3-none-any.whl" for stem in stems}
    assert names == wheels | {f"{stem}.tar.gz" for stem in stems} | {"SHA256SUMS"}
    checked = subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=dists)
    assert checked.returncode == 0


@pytest.mark.slow
def test_a_wheel_with_another_timestamp_is_noticed(dists: Path, tmp_path: Path) -> None:
    builder = script("build_dists")
    one, other = (shutil.copytree(dists, tmp_path / name) for name in ("one", "other"))
    wheel = next(other.glob("tunewright_qwen-*.whl"))
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.comment = b"built elsewhere"
    next(other.glob("tunewright_llama-*.gz")).unlink()
    found = sorted(builder.differences(one, other))
    assert found == [
        f"tunewright_llama-{VERSION}.tar.gz: two builds differ",
        f"{wheel.name}: two builds differ",
    ]


def rewritten(wheel: Path, target: Path, change) -> Path:
    """A copy of a wheel whose files went through `change(name, data) -> data | None`."""
    copy = target / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            if (data := change(name, old.read(name))) is not None:
                new.writestr(name, data)
    return copy


CHANGES = {
    "checkpoints.toml: missing": lambda n, d: None if n.endswith("checkpoints.toml") else d,
    "tiny.toml: is not the package's file": lambda n, d: (
        d + b"\n" if n.endswith("tiny.toml") else d
    ),
    "no licence": lambda n, d: None if n.endswith("licenses/LICENSE") else d,
    "Version is '0.0.9'": lambda n, d: (
        d.replace(f"Version: {VERSION}\n".encode(), b"Version: 0.0.9\n")
        if n.endswith("METADATA")
        else d
    ),
    "does not require tunewright": lambda n, d: (
        b"\n".join(x for x in d.split(b"\n") if b"Requires-Dist" not in x)
        if n.endswith("METADATA")
        else d
    ),
    "entry point tunewright.template: qwen3: no file": lambda n, d: (
        None if n.endswith("templates/qwen3.jinja") else d
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("problem", CHANGES)
def test_a_wheel_that_lacks_something_is_noticed(dists: Path, tmp_path: Path, problem: str) -> None:
    builder = script("build_dists")
    project = builder.read_project(QWEN)
    wheel = rewritten(next(dists.glob("tunewright_qwen-*.whl")), tmp_path, CHANGES[problem])
    found = list(builder.wheel_problems(wheel, project, QWEN, VERSION))
    assert any(problem in line for line in found), found


@pytest.mark.slow
def test_an_sdist_that_lacks_a_file_is_noticed(dists: Path, tmp_path: Path) -> None:
    builder = script("build_dists")
    wheel = next(dists.glob("tunewright_llama-*.whl"))
    other = next(dists.glob("tunewright_qwen-*.gz"))
    (problem,) = builder.sdist_problems(other, wheel, tmp_path)
    assert "makes another wheel" in problem


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path) -> None:
    tmp_path.joinpath("thesis.txt").write_text("years of work")
    (problem,) = script("build_dists").build(tmp_path, [ROOT / "kernel"])
    assert "holds other files" in problem
    assert tmp_path.joinpath("thesis.txt").is_file()
