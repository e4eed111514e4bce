"""Reward models with towers: they see the picture, in training and where they score."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tunewright
from media.media_cases import every_twin, subject
from media.test_batches import collated, filled, rows
from media.test_recipes import QUESTION, recipe
from media.test_rollouts import prompts
from media.test_stages import FAMILY, compared, losses
from tunewright import registry
from tunewright.events import Event, Logged
from tunewright.inference import EngineRequest
from tunewright.run import open_run
from tunewright.types import (
    Conversation,
    MediaPart,
    Message,
    Part,
    RewardRequest,
    TemplateRequest,
    TextPart,
)
from tunewright_conformance.bench import load_model
from tunewright_hf.batching.collators import Padded
from tunewright_hf.losses.sequence_scores import last_known, scores_at_the_end
from tunewright_rewards import RewardModel

#: one of each kind of positions, masks and token types; the others are long
OFTEN = {"qwen2_vl", "gemma3_media", "mllama"}
TWINS = [
    pytest.param(*each.values, id=each.id, marks=() if each.id in OFTEN else pytest.mark.long)
    for each in every_twin()
    if each.id != "llama4_media"
]


@pytest.mark.parametrize(("family", "twin"), TWINS)
def test_padded_as_alone(family: str, twin: str, tmp_path: Path) -> None:
    """Of every model with towers, whose head alone is new."""
    case = subject(family, twin)
    loaded = load_model(registry.find("family", family), twin, tmp_path, head="score")
    model, media = loaded.model, collated(case)
    assert not any("score" in name for name in loaded.frozen)
    made = rows(case)
    with torch.no_grad(), filled(model):
        together = scores_at_the_end(model, model, Padded(0, media=media)(made)["inputs"])
        alone = [Padded(0, media=media)([row])["inputs"] for row in made]
        each = torch.cat([scores_at_the_end(model, model, one) for one in alone])
    torch.testing.assert_close(together, each, rtol=1e-4, atol=1e-5)
    assert len(set(each.tolist())) == len(made)


def test_a_medium_after_the_answer_is_not_scored(tmp_path: Path) -> None:
    """A rank without media ends its batch in one that is not trained."""
    case = subject("qwen", "qwen2_vl")
    model = load_model(registry.find("family", "qwen"), "qwen2_vl", tmp_path, head="score").model
    row = {"input_ids": [4, 5, 6, 7], "labels": [-100, -100, 6, 7]}
    without, always = collated(case), collated(case)
    always.in_every_batch = True
    found = []
    for media in (without, always):
        batch = Padded(0, media=media)([row])
        last = last_known(batch["labels"] != -100)
        with torch.no_grad():
            found.append(float(scores_at_the_end(model, model, batch["inputs"], last)))
    assert "pixel_values" in batch["inputs"]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of data, and in it the run of a policy and a reward model of it."""
    return train(tmp_path_factory.mktemp("reward"))


def train(folder: Path, **more: Any) -> Path:
    path = compared(folder, "pairs")
    stages = [{"name": "reward"}]
    training = {"max_steps": 40, "learning_rate": 5e-3, "lr_scheduler_type": "constant"}
    options = {"train_projector": True}
    asked = recipe(
        folder,
        family=FAMILY | options,
        data=[{"path": str(path)}],
        stages=stages,
        training=training | {"logging_steps": 1},
        **more,
    )
    del asked["stage"]
    found = losses(asked)
    assert found[-1] < 0.6 * found[0]
    return folder


def talk(folder: Path, file: str, answer: str) -> list[Message]:
    parts: list[Part] = [MediaPart("image", str(folder / file)), TextPart(QUESTION)]
    return [Message("user", parts), Message("assistant", answer)]


ASKED = [("Red0.png", "Red."), ("Red0.png", "Blue."), ("Blue1.png", "Red."), ("Blue1.png", "Blue.")]


def assert_follows(folder: Path) -> None:
    """The better answer is that which fits the picture."""
    inputs = [Conversation(talk(folder, *each)) for each in ASKED]
    opened = open_run(folder / "run").call("engine", "open_engine", EngineRequest(head="score"))
    with opened as engine:
        red, not_red, not_blue, blue = engine.score(inputs).values
    assert red > not_red and blue > not_blue


@pytest.mark.long
def test_lora(tmp_path: Path) -> None:
    assert_follows(train(tmp_path, adapter={"name": "lora", "rank": 16}))


def test_scores_follow_the_picture(trained: Path) -> None:
    """Through the engine and as a reward, which agree."""
    run = open_run(trained / "run")
    assert_follows(trained)

    special = dict(run.load(weights="none").tokenizer.special_tokens_map)
    asked_for = [
        TemplateRequest(Conversation(talk(trained, file, "")[:1]), True, special)
        for file, _ in ASKED
    ]
    texts = [run.call("template", "format_template", each).text for each in asked_for]
    media = [[{"kind": "image", "path": str(trained / file)}] for file, _ in ASKED]
    columns = {"prompts": texts, "media": media}
    reward = RewardModel(RewardModel.Options(path=str(trained / "run")))
    answers = [answer for _, answer in ASKED]
    found: Any = reward.score(run=run, request=RewardRequest(answers, columns))
    assert found[0] > found[1] and found[3] > found[2]
    spelled = columns | {"prompts": [f"<|image_pad|>{text}" for text in texts]}
    assert reward.score(run=run, request=RewardRequest(answers, spelled)) == [None] * 4
    said = RewardRequest([f"{answer}<|image_pad|>" for answer in answers], columns)
    assert None not in reward.score(run=run, request=said)


def test_it_rewards_a_policy(trained: Path, tmp_path: Path) -> None:
    asked = recipe(
        tmp_path,
        family=FAMILY,
        data=[{"path": str(prompts(tmp_path))}],
        stage={
            "name": "ppo",
            "ppo_epochs": 2,
            "max_new_tokens": 3,
            "rewards": [{"name": "reward_model", "path": str(trained / "run")}],
        },
        training={"max_steps": 2, "logging_steps": 2, "per_device_train_batch_size": 4},
    )
    found: list[Event] = []
    tunewright.train(asked, on_event=found.append)
    logged = [each.metrics for each in found if isinstance(each, Logged)]
    assert logged[0]["rewards/reward_model"] == pytest.approx(logged[0]["reward"])
