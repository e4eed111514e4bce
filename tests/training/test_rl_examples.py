"""The example recipes of grpo, online_dpo and ppo, made short: each runs to its end."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tunewright import check
from tunewright.run import train

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SHORT = [
    "family.tiny_hidden_size=16",
    "family.tiny_layers=1",
    "loggers=[jsonl]",
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
    "training.precision=fp32",
]


def run(name: str, *overrides: str) -> list[dict]:
    """Metrics that the example logged."""
    resolved = check.resolve(EXAMPLES / f"{name}.yaml", [*SHORT, *overrides])
    train(resolved, limit=8)
    lines = (Path(resolved.recipe.output) / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_grpo(tmp_path, monkeypatch, adapter):
    monkeypatch.chdir(tmp_path)
    logged = run(
        "grpo", f"adapter={adapter}", "stages.1.num_generations=2", "stages.1.max_new_tokens=4"
    )
    assert "rewards/format" in json.dumps(logged)


def test_dapo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = run("dapo", "stages.1.num_generations=2", "stages.1.max_new_tokens=8")
    names = {name for line in logged for name in line}
    assert {"rewards/overlong", "groups/alike", "clip_ratio/high"} <= names


def test_online_dpo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logged = run("online-dpo", "stages.1.max_new_tokens=4")
    names = {name for line in logged for name in line}
    assert {"rewards/missing_eos", "rewards/margins", "reward_margin", "kl"} <= names


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_rlhf(tmp_path, monkeypatch, adapter):
    """The language model goes on after the reward model, which judges it and is not handed on."""
    monkeypatch.chdir(tmp_path)
    shorter = [
        "stages.2.max_new_tokens=4",
        "stages.2.ppo_epochs=1",
        "stages.2.training.per_device_train_batch_size=2",
    ]
    logged = run("rlhf", f"adapter={adapter}", *shorter)
    folder = tmp_path / "runs/rlhf"
    assert "rewards/reward_model" in json.dumps(logged)
    assert (folder / "stages/3-ppo/value_head.safetensors").exists()
    stages = json.loads((folder / "run.json").read_text("utf-8"))["stages"]
    assert [stage["name"] for stage in stages] == ["sft", "reward", "ppo"]
    names = [weight_names(folder / stage["path"]) for stage in stages]
    assert names[0] == names[2]
    assert any("score" in name for name in names[1])


def weight_names(folder):
    (file,) = folder.glob("*model.safetensors")
    return set(load_file(file))
