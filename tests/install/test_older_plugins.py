"""A plugin's wheel of an older minor version against a newer kernel says what to upgrade."""

from pathlib import Path

import pytest

from install.local_index import Place
from workspace.members import ROOT, script


@pytest.fixture(scope="session")
def newer_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this kernel, as version 0.99.0."""
    builder, work = script("build_dists"), tmp_path_factory.mktemp("kernel")
    staged = builder.stage(ROOT / "kernel", work)
    for name in ("pyproject.toml", "src/tunewright/__init__.py"):
        file = staged / name
        version = builder.read_project(ROOT / "kernel")["version"]
        file.write_text(file.read_text("utf-8").replace(f'"{version}"', '"0.99.0"'), "utf-8")
    builder.build_all(work / "out", [staged])
    (wheel,) = (work / "out").glob("*.whl")
    return wheel


@pytest.mark.slow
def test_older_plugins_are_named_with_the_command(
    place: Place, newer_kernel: Path, tmp_path: Path
) -> None:
    place.install("tunewright-lora", "pip")
    assert place.run("plugins", "info", "lora", cwd=tmp_path).returncode == 0
    place.install("--no-deps", str(newer_kernel))  # as `pip install --upgrade tunewright` does
    done = place.run("plugins", "info", "lora", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: adapter 'lora' of tunewright-lora 0.1.0 needs tunewright>=0.1,<0.2, this is "
        "tunewright 0.99.0 (tunewright plugins install --upgrade: 2 distributions are too old)\n"
    )
    done = place.run("plugins", "install", "--upgrade", "--dry-run", cwd=tmp_path)
    assert done.stdout.endswith(
        "pip install --upgrade tunewright-hf==0.99.* tunewright-lora==0.99.*\n"
    )
    checked = place.run("env", "doctor", "--offline", cwd=tmp_path)
    assert checked.returncode == 2  # a plugin, too, and not installed here
    assert "pip install tunewright-env" in checked.stderr
