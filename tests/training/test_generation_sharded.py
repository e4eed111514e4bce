"""Stages that generate, with a model sharded over two ranks: the training of one process."""

import json
from pathlib import Path
from typing import Any

import pytest
from accelerators_setup import WORDS, Trained, asked, go, on_two_processes
from safetensors.torch import load_file

from tunewright import check
from tunewright.source import RecipeProblems

REWARD = {"rewards": [{"name": "length", "target": 12}], "max_new_tokens": 6}
STAGES: dict[str, dict[str, Any]] = {
    "grpo": {**REWARD, "num_generations": 3, "beta": 0.1, "num_iterations": 2},
    "online_dpo": REWARD,
    "ppo": {**REWARD, "ppo_epochs": 2, "kl_target": 0.1},
    "distill": {"lmbda": 0.7, "max_new_tokens": 6},  # and a teacher
    "sft": {"predict_with_generate": True, "max_new_tokens": 6},
}
LORA = {"name": "lora", "rank": 4}


def prompts(folder: Path) -> list[dict[str, str]]:
    """Sources of a file of prompts: half as many tokens in one half of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": " ".join(WORDS[: 1 + number % 4])} for number in range(8)]
    (folder / "prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return [{"path": str(folder / "prompts.jsonl")}]


def sections(folder: Path, name: str, adapter: Any) -> dict[str, Any]:
    data = prompts(folder / "data") if "rewards" in STAGES[name] else asked(folder / "data")["data"]
    return {
        "stage": {"name": name, **STAGES[name]},
        "data": data,
        "eval_data": {"held_out": data},
        "adapter": adapter,
        "training": {"per_device_train_batch_size": 4, "eval_steps": 2, "save_steps": 2},
    }


def further(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "adapter", "accelerator"),
    [
        ("grpo", LORA, "fsdp"),
        ("ppo", "full", "fsdp"),
        further("online_dpo", LORA, "fsdp"),
        further("ppo", LORA, "fsdp"),
        further("grpo", "full", "fsdp"),
        further("grpo", LORA, {"name": "fsdp", "reshard_after_forward": False}),
        further("grpo", {**LORA, "init": "pissa"}, "fsdp"),  # each rank loads the whole model
        further("grpo", "full", {"name": "deepspeed", "stage": 2}),
        further("ppo", "full", {"name": "deepspeed", "stage": 2}),
        further("distill", LORA, "fsdp"),
        further("sft", "full", "fsdp"),
        further("grpo", "full", None),  # each rank holds the model
        further("ppo", LORA, None),
    ],
)
def test_two_ranks_train_as_one(tmp_path: Path, name: str, adapter: Any, accelerator: Any) -> None:
    given = sections(tmp_path, name, adapter)
    if name == "distill":
        go(tmp_path / "teacher", adapter="full")
        given["stage"]["teacher"] = str(tmp_path / "teacher" / "run" / "model")
    one = go(tmp_path / "one", **given)
    given["training"]["per_device_train_batch_size"] = 2
    accelerators = [accelerator] if accelerator else []
    words = (tmp_path / "two", json.dumps(accelerators), json.dumps(given))
    two = on_two_processes("accelerators_worker.py", *words)
    assert len(two) == len(one.metrics) == 6
    for mine, right in zip(two, one.metrics, strict=True):
        assert mine == pytest.approx(right, rel=1e-4, abs=1e-5)
    expected, found = one.weights, Trained(tmp_path / "two").weights
    assert expected.keys() == found.keys()
    for each, tensor in expected.items():
        assert tensor.allclose(found[each], atol=2e-5), each
    if name == "ppo":
        heads = [
            load_file(tmp_path / each / "run" / "value_head.safetensors") for each in ("one", "two")
        ]
        assert all(heads[0][each].allclose(heads[1][each], atol=2e-5) for each in heads[0])


#: accelerators that keep the model apart
APART = ["tensor_parallel", "expert_parallel", {"name": "deepspeed", "stage": 3}]


@pytest.mark.parametrize("name", STAGES)
def test_a_model_that_is_kept_apart_cannot_generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    given = sections(tmp_path, name, "full") | {"launch": {"processes": 2}, "model": "org/model"}
    given["stage"] |= {"teacher": "org/other"} if name == "distill" else {}
    for each in APART:
        with pytest.raises(RecipeProblems, match=f"{name} generates text, which needs the whole"):
            check.resolve(asked(tmp_path, each, **given))
    check.resolve(asked(tmp_path, {"name": "deepspeed", "stage": 2}, **given))
    needless = {"sft": "predict_with_generate", "distill": "lmbda"}.get(name)
    if needless:
        del given["stage"][needless], given["stage"]["max_new_tokens"]
        for each in APART:
            check.resolve(asked(tmp_path, each, **given))


def test_weights_in_shards_go_to_no_other_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    given = sections(tmp_path, "grpo", LORA) | {"launch": {"processes": 2}}
    given["stage"] |= {"rollouts": {"engine": "vllm", "address": "http://127.0.0.1:1"}}
    with pytest.raises(RecipeProblems, match="vllm gets weights that one rank holds, and fsdp"):
        check.resolve(asked(tmp_path, "fsdp", **given))
