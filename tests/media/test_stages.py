"""Every stage trains on rows with media: only the language model, unless towers are asked for."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps
from safetensors.torch import load_file

import tunewright
from media.media_cases import subject
from media.test_recipes import COLOURS, QUESTION, pictures, recipe
from tunewright import RecipeError
from tunewright.events import Event, Logged, Notice
from tunewright_hf.media.collation import MediaRows

NONE = os.strerror(errno.ENOENT)
FAMILY = {"name": "qwen", "tiny_variant": "qwen2_vl"}


def compared(folder: Path, kind: str) -> Path:
    """Pairs, or labelled answers, about pictures; one row without a picture."""
    pictures(folder, 3)
    rows = []
    for number, (name, other) in enumerate([("Red", "Blue"), ("Blue", "Red")] * 2):
        asked: dict[str, Any] = {
            "conversations": [{"from": "human", "value": f"<image>{QUESTION}"}],
            "images": [f"{name}{number % 3}.png"],
        }
        if number == 3:
            asked = {"conversations": [{"from": "human", "value": "Red or blue?"}], "images": []}
        if kind == "pairs":
            answers = {"chosen": name, "rejected": other}
            more = {key: {"from": "gpt", "value": f"{text}."} for key, text in answers.items()}
        else:
            asked["conversations"].append({"from": "gpt", "value": f"{name}."})
            more = {"label": number % 2 == 0}
        rows.append(asked | more)
    path = folder / f"{kind}.json"
    path.write_text(json.dumps(rows), "utf-8")
    return path


def losses(made: dict[str, Any]) -> list[float]:
    found: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, Logged):
            found.append(event.metrics["loss"])

    tunewright.train(made, on_event=listen)
    return found


def made(folder: Path, **more: Any) -> dict[str, Any]:
    training = {"max_steps": 2, "logging_steps": 1, "batching": "random"} | more.pop("training", {})
    return recipe(folder, **{"family": FAMILY, **more, "training": training})


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("dpo", "pairs"),
        ("reward", "pairs"),
        ({"name": "dpo", "cache_reference": False}, "pairs"),
        ("orpo", "pairs"),
        ("simpo", "pairs"),
        ("kto", "labels"),
    ],
    ids=str,
)
def test_comparing_stages(stage: Any, kind: str, tmp_path: Path) -> None:
    path = compared(tmp_path, kind)
    found = losses(made(tmp_path, stage=stage, data=[{"path": str(path)}], adapter="lora"))
    assert len(found) == 2 and all(loss > 0 for loss in found)


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("orpo", "pairs"),
        pytest.param("simpo", "pairs", marks=pytest.mark.long),
        pytest.param("reward", "pairs", marks=pytest.mark.long),
        pytest.param("dpo", "pairs", marks=pytest.mark.long),
        pytest.param("kto", "labels", marks=pytest.mark.long),
    ],
)
def test_the_picture_counts_in_comparing_stages(stage: str, kind: str, tmp_path: Path) -> None:
    """Control: with other pictures the losses are others, so they reach the model."""
    path = compared(tmp_path, kind)
    training = {"learning_rate": 0.01}
    asked = made(tmp_path, stage=stage, data=[{"path": str(path)}], training=training)
    before = losses(asked)
    for name in COLOURS:
        for number in range(3):
            file = tmp_path / f"{name}{number}.png"
            with Image.open(file) as image:
                ImageOps.invert(image).save(file)
    # a policy that equals its reference has the same first loss whatever it sees
    after = losses(asked | {"output": str(tmp_path / "two")})
    assert after[-1] != pytest.approx(before[-1], rel=1e-6)


def test_pretraining(tmp_path: Path) -> None:
    pictures(tmp_path, 2)
    rows = [
        {"text": "A picture: <image> It is red.", "images": ["Red0.png"]},
        {"text": "No picture."},
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = losses(made(tmp_path, stage="pretrain", data=[{"path": str(path)}]))
    assert len(found) == 2


def test_the_result_has_the_processor_of_the_training(tmp_path: Path) -> None:
    """With the recipe's options, by which chat and other programs then resize images."""
    options = {"image_max_pixels": 784 * 10, "video_fps": 1.0, "video_max_frames": 6}
    losses(made(tmp_path, family=FAMILY | options))
    saved = json.loads((tmp_path / "run/model/processor_config.json").read_text("utf-8"))
    assert saved["image_processor"]["size"]["longest_edge"] == 784 * 10
    assert saved["video_processor"]["fps"] == 1.0
    assert saved["video_processor"]["max_frames"] == 6


def test_lora_leaves_towers_alone(tmp_path: Path) -> None:
    losses(made(tmp_path, adapter="lora"))
    saved = load_file(tmp_path / "run/model/adapter_model.safetensors")
    assert saved and not any("visual" in name for name in saved)
    assert (tmp_path / "run/model/processor_config.json").is_file()
    losses(
        made(
            tmp_path,
            adapter="lora",
            family=FAMILY | {"train_tower": True},
            output=str(tmp_path / "b"),
        )
    )
    saved = load_file(tmp_path / "b/model/adapter_model.safetensors")
    assert any("visual.blocks" in name for name in saved)


def test_workers(tmp_path: Path) -> None:
    """Batches from workers are those of this process; a file that is gone is one line."""
    asked = made(tmp_path)

    def run(workers: int) -> list[float]:
        training = asked["training"] | {"dataloader_workers": workers}
        return losses(asked | {"training": training, "output": str(tmp_path / str(workers))})

    alone, with_workers = run(0), run(2)
    assert alone == with_workers


def test_missing_file(tmp_path: Path) -> None:
    again = made(tmp_path, training={"dataloader_workers": 1})
    tunewright.train(again)
    (tmp_path / "Red0.png").write_bytes((tmp_path / "Red0.png").read_bytes()[:60])
    with pytest.raises(tunewright.TunewrightError, match=r"Red0.png"):
        tunewright.train(again | {"output": str(tmp_path / "two")})


@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_unreadable_files_are_left_out(packing: bool, tmp_path: Path) -> None:
    """And counted. Their headers were read when the data was prepared."""
    asked = made(tmp_path, stage={"name": "sft", "packing": packing})
    more = {"per_device_train_batch_size": 1} if packing else {}
    asked["training"] |= {"unreadable_media": "skip", "max_steps": 3} | more
    for name in ("Red0.png", "Blue1.png"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:60])
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice) and event.level == "warning":
            said.append(event.message)

    tunewright.train(asked, on_event=listen)
    named = [each for each in said if "its example is not trained" in each]
    assert {each.split()[1] for each in named} == {"'Red0.png'", "'Blue1.png'"}
    assert named[-1].endswith(f"({len(named)} so far)")


def test_rows_that_are_left_out_are_not_trained(tmp_path: Path) -> None:
    case = subject("qwen", "qwen2_vl")
    media = MediaRows(case.loaded.processor, root=tmp_path, skips=True)
    row = {"input_ids": [4, 5], "labels": [4, 5]}
    gone = row | {"media": [{"kind": "image", "path": "gone.png"}], "loss_weights": [1.0, 0.5]}
    (first, other), problems = media.prepared([row, gone])
    assert first["labels"] == [4, 5] and problems == ["image 'gone.png' cannot be read: " + NONE]
    assert set(other["labels"]) == {-100} and set(other["loss_weights"]) == {0.0}
    assert len(other["media"]) == 1


def test_only_some_stages_leave_rows_out(tmp_path: Path) -> None:
    training = {"unreadable_media": "skip"}
    path = compared(tmp_path, "pairs")
    asked = made(tmp_path, stage="dpo", data=[{"path": str(path)}], training=training)
    with pytest.raises(RecipeError, match="dpo leaves no rows out"):
        tunewright.train(asked)
    asked = made(tmp_path, stage="sft", family={"name": "qwen"}, training=training)
    asked["output"] = str(tmp_path / "text")
    asked["data"] = [{"path": str(tmp_path / "text.jsonl")}]
    (tmp_path / "text.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    with pytest.raises(RecipeError, match="the model takes no media"):
        tunewright.train(asked)


def test_no_score_without_a_class(tmp_path: Path) -> None:
    """Llama 4's class with towers is one with a head of its own."""
    path = compared(tmp_path, "pairs")
    family = {"name": "llama", "tiny_variant": "llama4_media"}
    asked = made(tmp_path, stage="reward", family=family, data=[{"path": str(path)}])
    with pytest.raises(RecipeError, match="no class of llama4 without its own head"):
        tunewright.train(asked)
