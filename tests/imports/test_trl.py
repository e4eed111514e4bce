"""TRL's configurations, key by key, in YAML files and in scripts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import trl as library
import yaml

from tunewright import check
from tunewright_import import trl
from tunewright_import.files import translate_file, translated
from tunewright_import.translation import Refused, Translation

MODEL = "Qwen/Qwen3-0.6B"
LEAST = {"model_name_or_path": MODEL, "dataset_name": "data/rows.jsonl", "output_dir": "out"}


def of(**keys: Any) -> Translation:
    return trl.translate({**LEAST, **keys}, Path("config.yaml"), Path())


def test_the_least() -> None:
    assert of().recipe == {
        "model": MODEL,
        "family": "qwen",
        "adapter": "full",
        "data": [{"path": "data/rows.jsonl"}],
        "stage": "sft",
        "training": {
            "learning_rate": 2e-5,
            "max_length": 1024,
            "epochs": 3.0,
            "lr_scheduler_type": "linear",
            "activation_checkpointing": True,
            "batching": "random",
            "save_steps": 500,
        },
        "output": "out",
    }


def test_lora_and_quantization() -> None:
    recipe = of(use_peft=True, lora_r=4, lora_target_modules=["q_proj"], load_in_4bit=True).recipe
    adapter = {"name": "lora", "rank": 4, "alpha": 32, "dropout": 0.05, "targets": ["q_proj"]}
    assert recipe["adapter"] == adapter
    options = {"bits": 4, "type": "nf4", "double_quantization": False}
    assert recipe["quantizer"] == {"name": "bitsandbytes", **options}


@pytest.mark.parametrize(
    ("keys", "stage"),
    [
        ({"packing": True}, {"name": "sft", "packing": True}),
        ({"loss_type": "dft"}, {"name": "sft", "loss": "dft"}),
        ({"_verb": "dpo"}, "dpo"),
        ({"beta": 0.2, "loss_type": ["ipo"]}, {"name": "dpo", "beta": 0.2, "loss": "ipo"}),
        (
            {
                "_verb": "dpo",
                "loss_type": ["sigmoid", "bco_pair", "sft"],
                "loss_weights": [1, 2, 3],
            },
            {"name": "dpo", "loss": {"sigmoid": 1, "bco_pair": 2}, "sft_weight": 3},
        ),
        ({"desirable_weight": 2.0}, {"name": "kto", "desirable_weight": 2.0}),
        ({"center_rewards_coefficient": 0.1}, {"name": "reward", "center_coefficient": 0.1}),
        (
            {"num_generations": 4, "reward_model_name_or_path": "runs/rm", "loss_type": "grpo"},
            {
                "name": "grpo",
                "rewards": [{"name": "reward_model", "path": "runs/rm"}],
                "num_generations": 4,
                "loss": "grpo",
            },
        ),
        (
            {
                "_verb": "grpo",
                "reward_model_name_or_path": "runs/rm",
                "beta": 0.1,
                "num_iterations": 2,
                "epsilon_high": 0.28,
                "scale_rewards": "batch",
                "entropy_coef": 0.01,
            },
            {
                "name": "grpo",
                "rewards": [{"name": "reward_model", "path": "runs/rm"}],
                "beta": 0.1,
                "entropy_weight": 0.01,
                "unbiased_kl": True,
                "num_iterations": 2,
                "epsilon_high": 0.28,
                "scale_rewards": "batch",
            },
        ),
        (
            {
                "_verb": "grpo",
                "reward_model_name_or_path": "runs/rm",
                "loss_type": "sapo",
                "epsilon": 0.1,
            },
            {
                "name": "grpo",
                "rewards": [{"name": "reward_model", "path": "runs/rm"}],
                "loss": "grpo",
            },
        ),
        (
            {"reward_model_path": "runs/rm", "missing_eos_penalty": 1.0, "loss_type": "ipo"},
            {
                "name": "online_dpo",
                "rewards": [{"name": "reward_model", "path": "runs/rm"}],
                "loss": "ipo",
                "missing_eos_penalty": 1.0,
                "max_new_tokens": 64,
                "temperature": 0.9,
            },
        ),
    ],
)
def test_stages(keys: dict[str, Any], stage: Any) -> None:
    assert of(**keys).recipe["stage"] == stage


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"reward_funcs": ["accuracy"]}, "rewards by Python functions"),
        ({"missing_eos_penalty": 1.0}, "names no reward_model_path"),
        ({"dataset_name": None}, "names no dataset_name"),
        ({"optim": "adagrad"}, "adagrad"),
        ({"loss_type": "cross"}, "trains SFT with the loss cross"),
    ],
)
def test_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        of(**keys)


CONFIGS = ("SFTConfig", "DPOConfig", "KTOConfig", "RewardConfig", "GRPOConfig", "ModelConfig")


@pytest.mark.parametrize("name", [*CONFIGS, "ScriptArguments"])
def test_every_key_of_the_library_has_a_rule(name: str) -> None:
    keys = {field.name for field in dataclasses.fields(getattr(library, name))}
    found = of(**{key: None for key in keys if key not in LEAST})
    assert not [note.key for note in found.notes if "no known key" in note.text]


def test_nothing_is_dropped_silently() -> None:
    notes = {note.key: (note.kind, note.text) for note in of(use_vllm=True, lerning_rate=1).notes}
    assert notes["use_vllm"][0] == "missing"
    assert notes["lerning_rate"] == ("missing", "is no known key; did you mean learning_rate?")
    assert notes[""][0] == "said"


SCRIPT = r"""
# trains on a helper's own data
export WANDB_PROJECT=demo
MODEL=Qwen/Qwen3-0.6B
BATCH=4
CUDA_VISIBLE_DEVICES=0 NPROC_PER_NODE=2 \\
accelerate launch --num_processes 2 examples/scripts/dpo.py \\
    --model_name_or_path ${MODEL} --dataset_name data/pairs.jsonl \\
    --learning_rate 5e-7 --gradient_accumulation_steps $(expr 16 / $BATCH) \\
    --use_peft --lora-target-modules q_proj v_proj --output_dir out | tee log.txt
"""


def test_a_script(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(SCRIPT.replace("\\\\", "\\"))
    result = translated("trl", tmp_path / "run.sh", tmp_path)
    recipe = result.recipe
    assert recipe["stage"] == "dpo"
    assert recipe["model"] == MODEL
    assert recipe["training"]["learning_rate"] == 5e-7
    assert recipe["training"]["gradient_accumulation_steps"] == 4
    assert recipe["adapter"]["targets"] == ["q_proj", "v_proj"]
    assert recipe["launch"] == {"processes": 2}
    assert {"WANDB_PROJECT", "CUDA_VISIBLE_DEVICES"} <= {note.key for note in result.notes}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("trl sft --model_name_or_path $M --dataset_name a", "the shell variable M"),
        ("trl sft --learning_rate $(cat rate)", "in the shell"),
        ("trl env", "no command of trl that train"),
        ("trl sft --a 1\ntrl dpo --a 1", "several commands"),
        ("trl sft stray --a 1", "'stray', which is no flag"),
    ],
)
def test_scripts_that_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "run.sh").write_text(text)
    with pytest.raises(Refused, match=reason):
        translated("trl", tmp_path / "run.sh", tmp_path)


def test_the_recipe_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(LEAST))
    translate_file("trl", tmp_path / "config.yaml", tmp_path / "recipe.yaml")
    assert check.resolve(tmp_path / "recipe.yaml").recipe.training.learning_rate == 2e-5
