"""Axolotl's configurations."""

from pathlib import Path
from typing import Any

import pytest

from tunewright_import import axolotl
from tunewright_import.translation import Refused, Translation

LEAST = {
    "base_model": "Qwen/Qwen2.5-0.5B-Instruct",
    "datasets": [{"path": "data/rows.jsonl", "type": "chat_template"}],
    "micro_batch_size": 2,
    "output_dir": "./out",
}


def translated(**keys: Any) -> Translation:
    return axolotl.translate({**LEAST, **keys}, Path("config.yml"), Path())


def test_the_least() -> None:
    result = translated()
    assert result.recipe == {
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "family": "qwen",
        "adapter": "full",
        "stage": "sft",
        "data": [{"path": "data/rows.jsonl"}],
        "training": {
            "epochs": 1,
            "lr_scheduler_type": "cosine",
            "precision": "fp32",
            "per_device_train_batch_size": 2,
        },
        "output": "./out",
    }
    assert not result.notes


def test_qlora() -> None:
    recipe = translated(
        adapter="qlora",
        load_in_4bit=True,
        lora_r=32,
        lora_alpha=16,
        lora_target_linear=True,
        lora_modules_to_save=["embed_tokens"],
    ).recipe
    assert recipe["adapter"] == {
        "name": "lora",
        "rank": 32,
        "alpha": 16,
        "modules_to_save": ["embed_tokens"],
    }
    assert recipe["quantizer"] == {"name": "bitsandbytes", "bits": 4}


def test_training_and_plugins() -> None:
    recipe = translated(
        optimizer="adamw_bnb_8bit",
        adam_beta2=0.95,
        sample_packing=True,
        warmup_ratio=0.1,
        bf16="auto",
        evals_per_epoch=4,
        saves_per_epoch=1,
        gradient_checkpointing=True,
        attn_implementation="flash_attention_2",
        plugins=["axolotl.integrations.liger.LigerPlugin"],
        liger_rope=True,
        liger_rms_norm=True,
        fsdp=["full_shard", "auto_wrap"],
        fsdp_config={"fsdp_offload_params": True},
        wandb_project="mine",
    ).recipe
    assert recipe["optimizer"] == {"name": "adamw", "bits": 8, "beta2": 0.95}
    assert recipe["stage"] == {"name": "sft", "packing": True}
    training = recipe["training"]
    assert training["precision"] == "bf16"
    assert (training["evals_per_epoch"], training["saves_per_epoch"]) == (4, 1)
    assert training["warmup_steps"] == 0.1
    assert recipe["accelerators"] == [
        {"name": "flash_attention", "version": 2},
        {"name": "liger", "rope": True, "rms_norm": True, "glu": False, "layer_norm": False},
        {"name": "fsdp", "cpu_offload": True},
    ]
    assert recipe["loggers"][-1] == {"name": "wandb", "project": "mine"}


def test_data_sets() -> None:
    sets = [
        {
            "path": "org/set",
            "type": "chat_template",
            "split": "train[:10%]",
            "field_messages": "dialogue",
            "message_property_mappings": {"role": "speaker", "content": "value"},
            "roles_to_train": ["user"],
        },
        {"path": "json", "data_files": ["data/a.jsonl"], "ds_type": "json", "type": "input_output"},
    ]
    result = translated(datasets=sets, val_set_size=0.05)
    assert result.recipe["data"] == [
        {
            "path": "org/set",
            "hub": "hf",
            "split": "train[:10%]",
            "columns": {"messages": "dialogue"},
            "tags": {"role": "speaker"},
        },
        {"path": "data/a.jsonl", "format": "rendered"},
    ]
    assert result.recipe["dataset"] == {"name": "chat", "validation": 0.05}
    assert [note.key for note in result.notes] == ["datasets.roles_to_train"]


@pytest.mark.parametrize(
    ("keys", "stage"),
    [
        ({"rl": "dpo"}, "dpo"),
        ({"rl": "ipo"}, {"name": "dpo", "loss": "ipo"}),
        ({"rl": "orpo", "orpo_alpha": 0.2}, {"name": "orpo", "beta": 0.2}),
        ({"rl": "kto", "rl_beta": 0.5}, {"name": "kto", "beta": 0.5}),
        ({"reward_model": True}, "reward"),
        ({"pretraining_dataset": [{"path": "c4", "type": "pretrain"}]}, "pretrain"),
    ],
    ids=lambda value: "",
)
def test_stages(keys: dict[str, Any], stage: Any) -> None:
    assert translated(**keys).recipe["stage"] == stage


def test_refused() -> None:
    for keys, reason in (
        ({"rl": "gdpo"}, "gdpo"),
        ({"optimizer": "adagrad"}, "adagrad"),
        ({"adapter": "llama-adapter"}, "llama-adapter"),
        ({"datasets": None}, "names no datasets"),
    ):
        with pytest.raises(Refused, match=reason):
            translated(**keys)


def test_new_tokens() -> None:
    found = translated(tokens=["<plan>", "<done>"]).recipe
    assert found["family"] == {"name": "qwen", "new_tokens": ["<plan>", "<done>"]}
