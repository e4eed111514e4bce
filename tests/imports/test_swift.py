"""ms-swift's configurations, key by key."""

from pathlib import Path
from typing import Any

import pytest

from tunewright_import import swift
from tunewright_import.files import translated
from tunewright_import.translation import Refused, Translation

MODEL = "Qwen/Qwen2.5-7B-Instruct"
LEAST = {"model": MODEL, "dataset": "data/rows.jsonl", "output_dir": "out"}


def of(**keys: Any) -> Translation:
    return swift.translate({**LEAST, **keys}, Path("config.yaml"), Path())


def test_the_least() -> None:
    result = of()
    assert result.recipe == {
        "model": MODEL,
        "family": "qwen",
        "adapter": {"name": "lora", "rank": 8, "alpha": 32, "dropout": 0.05},
        "data": [{"path": "data/rows.jsonl"}],
        "stage": "sft",
        "optimizer": {"name": "adamw", "beta2": 0.95},
        "training": {
            "epochs": 3.0,
            "learning_rate": 1e-4,
            "gradient_accumulation_steps": 16,
            "per_device_train_batch_size": 1,
            "per_device_eval_batch_size": 1,
            "lr_scheduler_type": "cosine",
            "logging_steps": 5,
            "weight_decay": 0.1,
            "activation_checkpointing": True,
            "batching": "random",
            "save_steps": 500,
        },
        "output": "out",
    }
    assert "ModelScope" in next(note.text for note in result.notes if note.key == "model")


def test_sources() -> None:
    written = ["AI-ModelScope/alpaca#500", "HF::org/set:part", "a.jsonl#3"]
    recipe = of(dataset=written, val_dataset="b.jsonl", split_dataset_ratio=0.1).recipe
    assert recipe["data"] == [
        {"path": "AI-ModelScope/alpaca", "hub": "modelscope", "limit": 500},
        {"path": "org/set", "hub": "hf", "subset": "part"},
        {"path": "a.jsonl", "limit": 3},
    ]
    assert recipe["eval_data"] == {"validation": [{"path": "b.jsonl"}]}
    assert recipe["dataset"] == {"name": "chat", "validation": 0.1}


def test_methods() -> None:
    recipe = of(
        tuner_type="full", optimizer="muon", deepspeed="zero3", attn_impl="flash_attn"
    ).recipe
    assert recipe["adapter"] == "full"
    assert recipe["training"]["learning_rate"] == 1e-5
    assert recipe["optimizer"] == "muon"
    flash = {"name": "flash_attention", "version": 2}
    assert recipe["accelerators"] == [flash, {"name": "deepspeed", "stage": 3}]
    recipe = of(quant_bits=4, quant_method="bnb", init_weights="pissa", truncation_strategy="left")
    assert recipe.recipe["quantizer"] == {"name": "bitsandbytes", "bits": 4}
    assert recipe.recipe["adapter"]["init"] == "pissa"
    assert recipe.recipe["dataset"] == {"name": "chat", "truncate": "start"}


@pytest.mark.parametrize(
    ("keys", "stage"),
    [
        ({"packing": True}, {"name": "sft", "packing": True}),
        ({"_verb": "pt"}, {"name": "pretrain", "packing": False}),
        ({"rlhf_type": "dpo", "rpo_alpha": 0.1}, {"name": "dpo", "sft_weight": 0.1}),
        ({"rlhf_type": "simpo", "simpo_gamma": 1.5}, {"name": "simpo", "gamma": 1.5}),
        ({"rlhf_type": "rm"}, "reward"),
        ({"rlhf_type": "kto", "desirable_weight": 2.0}, {"name": "kto", "desirable_weight": 2.0}),
    ],
)
def test_stages(keys: dict[str, Any], stage: Any) -> None:
    assert of(**keys).recipe["stage"] == stage


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"rlhf_type": "grpo"}, "write the stage yourself"),
        ({"rlhf_type": "gkd"}, "trains by gkd"),
        ({"task_type": "embedding"}, "trains the task embedding"),
        ({"tuner_type": "reft"}, "the tuner reft"),
        ({"adapters": "out/checkpoint-1"}, "`stages` of a recipe"),
        ({"micro_batch_size": 1}, "Megatron"),
    ],
)
def test_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        of(**keys)


def test_a_script(tmp_path: Path) -> None:
    text = "NPROC_PER_NODE=2 swift rlhf --rlhf_type orpo --model a/b --dataset 'c/d#9' --beta 0.2\n"
    (tmp_path / "run.sh").write_text(f"nproc=2\n{text}\nswift infer --adapters out\n")
    result = translated("swift", tmp_path / "run.sh", tmp_path)
    assert result.recipe["stage"] == {"name": "orpo", "beta": 0.2}
    assert result.recipe["data"] == [{"path": "c/d", "hub": "modelscope", "limit": 9}]
    assert result.recipe["launch"] == {"processes": 2}
    assert "model" in {note.key for note in result.notes}


def test_a_number_of_examples_is_no_comment(tmp_path: Path) -> None:
    text = "swift sft --model a/b --dataset c/d#9 e/f#3 --lora_rank 4  # a comment: --lora_rank 5"
    (tmp_path / "run.sh").write_text(f"# swift sft --model it's/none\n{text}\n")
    recipe = translated("swift", tmp_path / "run.sh", tmp_path).recipe
    assert [each["limit"] for each in recipe["data"]] == [9, 3]
    assert recipe["adapter"]["rank"] == 4


def test_nothing_is_dropped_silently() -> None:
    notes = {
        note.key: note.text for note in of(loss_scale="react", lora_rnk=4, agent_template="x").notes
    }
    assert "every answer" in notes["loss_scale"]
    assert "lora_rank" in notes["lora_rnk"]
    assert "agent_template" in notes
