"""Sizes of media are set in the processor, by the family's options."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tunewright import RecipeError, RunError, registry
from tunewright.types import LoadRequest
from tunewright_conformance.bench import load_model, on_bench
from tunewright_conformance.doubles import FakeRun
from tunewright_hf.media.expander import MediaProcessor
from tunewright_hf.media.shapes import Shape
from tunewright_hf.models import libraries
from tunewright_hf.models.media_options import MediaOptions
from tunewright_hf.models.media_settings import MAX_PIXELS, configure
from tunewright_hf.models.modules import within


def loaded(folder: Path, family: str, twin: str, **options: Any) -> Any:
    entry = registry.find("family", family)
    handle = on_bench(entry, device="cpu", tiny_variant=twin, **options)
    return handle.call("load_model", run=FakeRun(folder), request=LoadRequest("tiny"))


def tokens(processor: Any, shape: Shape) -> int:
    return len(MediaProcessor(processor).expansions([shape])[0].ids)


def test_sizes(tmp_path: Path) -> None:
    """They decide the tokens, and are in the saved processor."""
    large = Shape("image", width=900, height=900)
    clip = Shape("video", width=200, height=100, frames=300, fps=30.0)
    usual = loaded(tmp_path, "qwen", "qwen2_vl").processor
    small = loaded(
        tmp_path, "qwen", "qwen2_vl", image_max_pixels=12544, video_fps=1.0, video_max_frames=6
    ).processor
    assert tokens(usual, large) == pytest.approx(50176 / 784, rel=0.15)
    assert tokens(small, large) == pytest.approx(12544 / 784, rel=0.15)
    assert len(MediaProcessor(usual).frames(clip)) == 20
    assert len(MediaProcessor(small).frames(clip)) == 6
    small.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "processor_config.json").read_text("utf-8"))
    assert saved["image_processor"]["size"]["longest_edge"] == 12544
    assert saved["video_processor"]["fps"] == 1.0
    assert saved["video_processor"]["max_frames"] == 6


def test_smallest_size(tmp_path: Path) -> None:
    icon = Shape("image", width=28, height=28)
    usual = loaded(tmp_path, "qwen", "qwen2_vl").processor
    larger = loaded(tmp_path, "qwen", "qwen2_vl", image_min_pixels=12544).processor
    assert (tokens(usual, icon), tokens(larger, icon)) == (1, 16)


def test_a_limit_by_default(tmp_path: Path) -> None:
    """Checkpoints may allow 16,384 tokens for an image."""
    said: list[str] = []
    processor = loaded(tmp_path, "qwen", "qwen2_vl").processor
    processor.image_processor.size = {"shortest_edge": 3136, "longest_edge": 12_845_056}
    configure(processor, MediaOptions(), lambda message, level: said.append(message))
    assert processor.image_processor.size["longest_edge"] == MAX_PIXELS
    assert said == [
        "images are scaled down to 1,003,520 pixels, the checkpoint allows 12,845,056: set "
        "family.image_max_pixels for more"
    ]
    configure(processor, MediaOptions(image_max_pixels=2_000_000), lambda *_: said.append("more"))
    assert processor.image_processor.size["longest_edge"] == 2_000_000
    assert len(said) == 1


@pytest.mark.parametrize(
    ("family", "twin", "options", "problem"),
    [
        ("gemma", "gemma3_media", {"image_max_pixels": 9999}, "does not limit the number of pix"),
        ("gemma", "gemma3_media", {"video_fps": 1.0}, "the model takes no video"),
        ("qwen", "qwen3", {"train_tower": True}, "is loaded without media"),
        ("qwen", "qwen2_vl", {"train_projector": True, "media": False}, "is loaded without media"),
    ],
)
def test_options_without_effect(
    family: str, twin: str, options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=problem):
        loaded(tmp_path, family, twin, **options)


def test_text_alone(tmp_path: Path) -> None:
    """Without media there is no processor, and nothing of a tower is trained."""
    for family, twin in (("qwen", "qwen2_vl"), ("llama", "llama4_media")):
        found = loaded(tmp_path, family, twin, media=False)
        assert found.processor is None
        towers = [name for name, _ in found.model.named_parameters() if "vision" in name]
        assert all(within(name, found.frozen) for name in towers)


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RunError) as caught:
        libraries.check_libraries("here")
    assert str(caught.value) == (
        "here: a model with media needs torchvision (pip install 'tunewright-hf[media]', or "
        "family: {media: false} for text alone)"
    )


def test_a_model_that_needs_a_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec

    def without(name: str) -> Any:
        return None if name == "timm" else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    needs = r"gemma3n needs the package timm \(pip install 'tunewright-gemma\[media\]'\)$"
    with pytest.raises(RunError, match=f"^twin gemma3n: {needs}"):
        loaded(tmp_path, "gemma", "gemma3n")
    (tmp_path / "config.json").write_text('{"model_type": "gemma3n"}', "utf-8")
    with pytest.raises(RunError, match=f"config.json: {needs}"):
        load_model(registry.find("family", "gemma"), None, tmp_path, model=str(tmp_path))


def test_a_broken_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision is beside a torch that it was not built for."""

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(libraries.importlib, "import_module", broken)
    with pytest.raises(RunError, match="torchvision is installed but broken: operator"):
        libraries.check_libraries("here")
