"""A torchvision that is missing, or built for another torch, is one line wherever a model is
loaded."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tunewright
from media.running import RECIPE, talk, write
from media.samples import image

pytest.importorskip("torchvision", reason="transformers' processors of images and video")

BROKEN = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
#: as if it were not installed
MISSING = """
import importlib.machinery
found = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = staticmethod(
    lambda name, *more: None if name.partition(".")[0] == "torchvision" else found(name, *more)
)
"""
ENTRIES = {
    "train": ("train", "recipe.yaml", "output=other"),
    "data prepare": ("data", "prepare", "recipe.yaml"),
    "data preview": ("data", "preview", "recipe.yaml"),
    "predict": ("predict", "run", "--data", "rows.jsonl", "--output", "answers.jsonl"),
    "chat": ("chat", "run"),
    "serve": ("serve", "run", "--port", "0"),
}
SAYS = {
    "missing": "a model with media needs torchvision (pip install 'tunewright-hf[media]', or "
    "family: {media: false} for text alone)",
    "broken": "torchvision is installed but broken: operator torchvision::nms does not exist (pip "
    "install 'tunewright-hf[media]', of the same build as torch; models of text need none)",
}


def test_the_extra_brings_both_and_the_default_install_has_it() -> None:
    needs = importlib.metadata.requires("tunewright-hf") or []
    media = {each.partition(">")[0].strip() for each in needs if 'extra == "media"' in each}
    assert media == {"torchvision", "av"}
    assert "tunewright-hf[media]>=0.1,<0.2" in wanted("tunewright-bundle-vision")
    assert any(
        each.startswith("tunewright-bundle-vision") for each in wanted("tunewright-bundle-all")
    )


def wanted(name: str) -> set[str]:
    return {each.replace(" ", "") for each in importlib.metadata.requires(name) or []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with images, and a run of it."""
    made = tmp_path_factory.mktemp("libraries")
    image(made / "a.png")
    write(made, *(talk("<image>?", "red", images=["a.png"]) for _ in range(4)))
    (made / "recipe.yaml").write_text(
        "model: tiny\nfamily: {name: qwen, tiny_variant: qwen2_vl}\ndata: [{path: rows.jsonl}]\n"
        "stage: sft\nadapter: lora\ntraining: {max_steps: 1}\noutput: run\n"
    )
    (made / "text.yaml").write_text(
        "model: tiny\nfamily: qwen\ndata: [{path: text.jsonl}]\n"
        "stage: sft\nadapter: lora\ntraining: {max_steps: 1}\noutput: text\n"
    )
    (made / "text.jsonl").write_text('{"instruction": "Say hello.", "output": "Hello."}\n' * 4)
    recipe = RECIPE | {
        "data": [{"path": str(made / "rows.jsonl")}],
        "stage": "sft",
        "adapter": "lora",
        "training": {"max_steps": 1},
        "loggers": [],
        "output": str(made / "run"),
    }
    assert tunewright.train(recipe).steps == 1
    (made / "missing").mkdir()
    (made / "missing/sitecustomize.py").write_text(MISSING)
    (made / "broken/torchvision").mkdir(parents=True)
    (made / "broken/torchvision/__init__.py").write_text(BROKEN)
    return made


def ran(folder: Path, kind: str, *command: str) -> tuple[int, list[str]]:
    """Exit code, and the lines of standard error that tell of errors."""
    environment = os.environ | {"PYTHONPATH": str(folder / kind), "HF_HUB_OFFLINE": "1"}
    made = subprocess.run(
        [sys.executable, "-m", "tunewright", *command],
        cwd=folder,
        env=environment,
        input="Hello?\n",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in made.stderr
    return made.returncode, [line for line in made.stderr.splitlines() if "error" in line.lower()]


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", SAYS)
def test_a_model_with_media(folder: Path, kind: str, entry: str) -> None:
    code, (line,) = ran(folder, kind, *ENTRIES[entry])
    assert code == 1 and line.startswith("error: ") and line.endswith(SAYS[kind])


@pytest.mark.slow
def test_a_model_of_text(folder: Path) -> None:
    """transformers imports a torchvision that is there with the classes of text models too; without
    one, they train."""
    code, (line,) = ran(folder, "broken", "train", "text.yaml", "output=other")
    assert code == 1 and line.endswith(SAYS["broken"])
    assert ran(folder, "missing", "train", "text.yaml") == (0, [])


@pytest.mark.slow
@pytest.mark.parametrize("kind", SAYS)
def test_recipes_are_checked_without_it(folder: Path, kind: str) -> None:
    """Nothing is loaded for that."""
    assert ran(folder, kind, "recipe", "check", "recipe.yaml") == (0, [])
