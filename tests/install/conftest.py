"""All distributions of this checkout, built once."""

from pathlib import Path

import pytest

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
