"""All distributions of this checkout, built once, and environments to install them into."""

import shutil
from pathlib import Path

import pytest

from install.local_index import Place, Views, closure, others
from workspace.members import script


@pytest.fixture(scope="session")
def dists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheels and sdists of all members. The build itself has found no problem."""
    builder = script("build_dists")
    out = tmp_path_factory.mktemp("build") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1750000000")
        problems = builder.build(out, builder.members())
    assert problems == []
    return out


@pytest.fixture(scope="session")
def index(dists: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with wheels, and the base: links to torch and what it needs."""
    root = tmp_path_factory.mktemp("index")
    views, wheels, base = Views(root / "views"), root / "wheels", root / "base"
    shutil.copytree(dists, wheels)
    for name in closure("torch"):
        views.write(name, base)
    for name in others().keys() - closure("torch"):
        views.wheel(name, wheels)
    return base, wheels


@pytest.fixture
def place(index: tuple[Path, Path], tmp_path: Path) -> Place:
    return Place(tmp_path / "env", *index)
