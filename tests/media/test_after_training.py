"""Rows with media in what follows training: predict and evaluate; and demo data through recipes."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import tunewright
from media.test_recipes import COLOURS, QUESTION, picture, pictures, recipe
from media.test_stages import losses
from predict.test_predict import predict
from predict.trained import call, read
from shared import SHARED
from tunewright_evaluate import command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a model that tells red from blue pictures, evaluated at its end."""
    folder = tmp_path_factory.mktemp("after")
    path = pictures(folder, 6)
    evals = {"same": [{"path": str(path)}]}
    tunewright.train(recipe(folder, eval_data=evals, training={"eval_steps": 36}))
    return folder / "run"


def evaluate(folder: Path, *arguments: str, output: Path) -> Any:
    call(command, folder, "--with", *arguments, "--output", output)
    return json.loads((output / "results.json").read_text("utf-8"))


def test_perplexity_is_the_loss_of_training(run: Path, tmp_path: Path) -> None:
    found = evaluate(run, "perplexity", output=tmp_path / "out")["metrics"]
    *_, trained = [row["loss"] for row in read(run / "metrics.jsonl") if "eval" in row]
    assert found["loss"] == pytest.approx(trained, rel=1e-4)
    one = evaluate(run, "perplexity", "batch_tokens=1", output=tmp_path / "one")["metrics"]
    assert one["loss"] == pytest.approx(found["loss"], rel=1e-4)


def test_predictions_follow_the_pictures(run: Path, tmp_path: Path) -> None:
    rows = []
    for name in COLOURS:
        path = picture(tmp_path / f"{name}.png", name, 2)
        ImageOps.invert(Image.open(path)).save(tmp_path / f"not {name}.png")
        for file in (path.name, f"not {name}.png"):
            said = [("human", f"<image>{QUESTION}"), ("gpt", f"{name}.")]
            talk = [{"from": role, "value": value} for role, value in said]
            rows.append({"conversations": talk, "images": [file]})
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = [row["text"].strip() for row in predict(run, tmp_path / "out.jsonl", data)]
    assert found[0] == "Red." and found[2] == "Blue."
    assert found[1] != "Red." and found[3] != "Blue."


DEMOS = {
    "mllm_demo": {"name": "qwen", "tiny_variant": "qwen2_vl"},
    "mllm_video_demo": {"name": "qwen", "tiny_variant": "qwen2_vl", "video_max_frames": 4},
    "mllm_audio_demo": {"name": "qwen", "tiny_variant": "qwen2_audio"},
    "mllm_video_audio_demo": {
        "name": "qwen",
        "tiny_variant": "qwen2_5_omni",
        "video_max_frames": 4,
    },
}


@pytest.mark.skipif(not (SHARED / "data/mllm_demo.json").is_file(), reason="no demo data here")
@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each == "mllm_demo" else pytest.mark.long) for each in DEMOS],
)
def test_demo_data(name: str, tmp_path: Path) -> None:
    family: dict[str, Any] = dict(DEMOS[name])
    if name != "mllm_audio_demo":
        family |= {"image_max_pixels": 784 * 4, "video_max_pixels": 784 * 8}
    training = {"max_steps": 1, "per_device_train_batch_size": 1, "max_length": 4096}
    made = recipe(
        tmp_path,
        family=family,
        data=[{"name": name, "dataset_info": str(SHARED / "data/dataset_info.json")}],
        training=training | {"logging_steps": 1},
    )
    (loss,) = losses(made)
    assert loss > 0
