"""Answers that are generated in training: about the media of their prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import tunewright
from media.media_cases import TALKS, parts
from media.test_generation import TOKENS, generated, prepared
from media.test_recipes import COLOURS, QUESTION, pictures, recipe
from tunewright.events import Evaluated, Event, Logged, Sampled
from tunewright_hf.media.collation import media_rows
from tunewright_hf.training.rollouts import RolloutGenerator, Sampling

FAMILY = {"name": "qwen", "tiny_variant": "qwen2_vl"}


@pytest.mark.parametrize(("family", "twin"), [("qwen", "qwen2_vl"), ("llama", "mllama")])
def test_completions_equal_generate(family: str, twin: str, tmp_path: Path) -> None:
    """Also where several prompts, of pictures and of text, share a call."""
    case = prepared(family, twin)
    talk = TALKS["question"][:-1]
    (part,) = parts(talk)
    case.medium(part.path).content.save(tmp_path / "a.png")
    media: Any = media_rows(case.loaded, tmp_path)
    writer = RolloutGenerator(case.loaded, (), Sampling(TOKENS, temperature=0.0), media)
    tokens, _ = generated(case, case.whole(talk, prompt=True))
    ids, own = case.prompt(talk), [{"kind": "image", "path": "a.png"}]
    found = writer.write([ids, ids[:3], ids], media=[own, [], own])
    assert [each.completion_ids for each in (found[0], found[2])] == [tokens] * 2
    assert found[0].row()["media"] == own and found[1].row()["media"] == []
    assert writer.prompt_text(found[0]).count(media.media.tokens["image"]) == 1


def prompts(folder: Path) -> Path:
    """Prompts about pictures, one without."""
    pictures(folder, 2)
    rows: list[Any] = [
        {"prompt": f"<image>{QUESTION}", "images": [f"{name}{number}.png"], "solution": name}
        for number in range(2)
        for name in COLOURS
    ]
    rows[-1] = {"prompt": "Red or blue?", "images": [], "solution": "Red"}
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def trained(folder: Path, stage: dict[str, Any], **more: Any) -> list[Event]:
    found: list[Event] = []
    data = [{"path": str(prompts(folder))}]
    rewards = {"rewards": [{"name": "length", "target": 5}], "max_new_tokens": 6}
    training = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4}
    made = recipe(folder, family=FAMILY, stage=stage | rewards, data=data, training=training)
    tunewright.train(made | more, on_event=found.append)
    return found


@pytest.mark.parametrize("name", ["grpo", "online_dpo", "ppo"])
def test_stages_with_rollouts(name: str, tmp_path: Path) -> None:
    options = {"grpo": {"num_generations": 2, "beta": 0.1}, "ppo": {"ppo_epochs": 2}}
    events = trained(tmp_path, {"name": name, **options.get(name, {})})
    logged = [each.metrics for each in events if isinstance(each, Logged)]
    assert len(logged) == 2 and all("reward" in each or name == "ppo" for each in logged)
    asked = next(each.prompt for each in events if isinstance(each, Sampled))
    assert asked.count("<|image_pad|>") <= 1


def test_rewards_see_the_files(tmp_path: Path) -> None:
    """A reward function gets the paths of the prompt's media."""
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "def sees(completions, media, **columns):\n"
        "    return [float(len(own)) + bool(own and Path(own[0]['path']).read_bytes()) "
        "for own in media]\n"
    )
    made = recipe(
        tmp_path,
        family=FAMILY,
        data=[{"path": str(prompts(tmp_path))}],
        stage={"name": "grpo", "num_generations": 2, "max_new_tokens": 2},
        training={"max_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 4},
    )
    found: list[Event] = []
    override = f"stage.rewards=[{{name: {tmp_path}/mine.py:sees}}]"
    tunewright.train(made, overrides=[override], on_event=found.append)
    (logged,) = [each.metrics for each in found if isinstance(each, Logged)]
    assert logged["reward"] == pytest.approx(3 * 2 / 4)


@pytest.mark.slow
def test_generation_in_evaluation(tmp_path: Path) -> None:
    """predict_with_generate: right about the pictures, wrong where they are changed for others."""
    path = pictures(tmp_path, 6)
    other = tmp_path / "other"
    other.mkdir()
    for each in tmp_path.glob("*.png"):
        ImageOps.invert(Image.open(each)).save(other / each.name)
    made = recipe(
        tmp_path,
        data=[{"path": str(path)}],
        stage={"name": "sft", "predict_with_generate": True, "max_new_tokens": 6},
        training={"eval_steps": 36},
        eval_data={
            "same": [{"path": str(path)}],
            "other": [{"path": str(path), "media_root": str(other)}],
        },
    )
    found: dict[str, float] = {}

    def listen(event: Event) -> None:
        if isinstance(event, Evaluated):
            found[event.dataset] = event.metrics["exact_match"]

    tunewright.train(made, on_event=listen)
    assert found["same"] > 0.9 and found["other"] < 0.1
