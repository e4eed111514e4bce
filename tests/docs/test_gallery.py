"""Recipes by task: each is on the page, names a real model, and runs with --smoke."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from docs.pages import DOCS, _tunewright

TASKS = sorted((DOCS / "examples/tasks").glob("*.yaml"))
PAGE = (DOCS / "how-to/recipes.md").read_text("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", TASKS, ids=lambda recipe: recipe.stem)
def test_a_recipe_of_the_gallery_runs(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the tiny twin of the model that it names, without the network."""
    shutil.copytree(DOCS / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = _tunewright(["train", f"examples/tasks/{recipe.name}", "--smoke"])
    output = yaml.safe_load(recipe.read_text("utf-8"))["output"]
    assert f"Everything is in {output}-smoke" in said
    assert list(Path(f"{output}-smoke/model").glob("*.safetensors"))


def test_the_page_lists_every_recipe() -> None:
    linked = re.findall(r"\(\.\./examples/tasks/(\w+)\.yaml\)", PAGE)
    assert sorted(linked) == [recipe.stem for recipe in TASKS]
