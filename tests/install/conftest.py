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
def index(dists: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheels: ours, and those that lead to the libraries that are installed here."""
    root = tmp_path_factory.mktemp("index")
    views, wheels, base = Views(), root / "wheels", closure("torch")
    shutil.copytree(dists, wheels)
    for name in others():
        # torch looks for its libraries beside itself: these share a folder
        views.wheel(name, wheels, root / ("base" if name in base else f"views/{name}"))
    return wheels


@pytest.fixture
def place(index: Path, tmp_path: Path) -> Place:
    return Place(tmp_path / "env", index)
