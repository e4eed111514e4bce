"""`tunewright data preview` and `data stats` of rows with images, video and audio."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from media.running import talk, write
from media.samples import image, video
from tunewright import RecipeError, RunError
from tunewright_data import app

pytest.importorskip("torchvision", reason="transformers' processors of images and video")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    image(tmp_path / "a.png", (112, 84))
    image(tmp_path / "b.png", (224, 140), "blue")
    video(tmp_path / "c.mp4", 20, (64, 48))
    write(
        tmp_path,
        talk("<image>What?", "red", images=["a.png"]),
        talk("<image>and <video>", "blue", images=["b.png"], videos=["c.mp4"]),
        talk("hello"),
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: tiny\nfamily: {name: qwen, tiny_variant: qwen2_vl}\ndata: [{path: rows.jsonl}]\n"
        f"stage: sft\ntraining: {{max_length: 512}}\noutput: {tmp_path / 'run'}\n"
    )
    return path


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_preview_shows_short_text_and_the_tokens_of_each_medium(recipe: Path) -> None:
    text = said("preview", str(recipe))
    assert "image a.png: 112 x 84 pixels, 12 tokens" in text
    assert "image b.png: 224 x 140 pixels, 40 tokens" in text
    assert "video c.mp4: 64 x 48 pixels, 20 frames in 2.0 seconds, " in text
    assert text.count("<|vision_start|><|image_pad|><|vision_end|>") == 2
    found = json.loads(said("preview", str(recipe), "--json"))
    assert [len(sample["media"]) for sample in found["samples"]] == [1, 2, 0]
    assert found["samples"][0]["media"][0]["shape"]["width"] == 112


def test_a_contact_sheet(recipe: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    said("preview", str(recipe), "--png", str(sheet))
    with Image.open(sheet) as found:
        colours = {found.convert("RGB").getpixel((12 + 252 * n + 120, 12 + 120)) for n in range(2)}
        assert found.width > found.height
    assert colours == {(255, 0, 0), (0, 0, 255)}
    write(tmp_path, talk("hello"))
    with pytest.raises(RunError, match="the examples have no media to draw"):
        said("preview", str(recipe), "--png", str(sheet))
    with pytest.raises(RecipeError, match="there is no folder for"):
        said("preview", str(recipe), "--png", str(tmp_path / "none" / "a.png"))


def test_stats_count_media(recipe: Path) -> None:
    text = said("stats", str(recipe))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["image"])
    assert line.split()[1:4] == ["2", "2", "52"] and "112 x 84" in line and "224 x 140" in line
    line = next(line for line in text.splitlines() if line.split()[:1] == ["video"])
    assert line.split()[1:3] == ["1", "1"] and line.split()[-1] == "2.0"
    found = json.loads(said("stats", str(recipe), "--json"))["media"]
    assert (found["image"]["tokens"], found["video"]["seconds"]) == (52, [2.0])
