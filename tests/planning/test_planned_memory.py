"""A plan's bytes are those of a real run, part by part."""

import subprocess
import sys
from pathlib import Path

import pytest
from planning_setup import planned, real, resolved
from transformers import Gemma3TextConfig

from tunewright_hf.planning.storages import PARTS

LORA = {"name": "lora", "rank": 4}
CHECKPOINTED = {"activation_checkpointing": True}
DPO = {"name": "dpo", "cache_reference": False}
DRAWN = {"rewards": [{"name": "length", "target": 20}], "max_new_tokens": 40}
GRPO = {"name": "grpo", "num_generations": 4, **DRAWN}
#: one of each way in which memory differs
RECIPES = {
    "bf16": {"training": {"precision": "bf16"}},
    "packed": {"stage": {"name": "sft", "packing": True}},
    "freeze": {"adapter": {"name": "freeze", "trainable_layers": 1}},
    "lora, checkpointed": {"adapter": LORA, "training": CHECKPOINTED},
    "dpo, lora": {"stage": DPO, "adapter": LORA},
}
FURTHER = {
    "full": {},
    "pure_bf16": {"training": {"precision": "pure_bf16"}},
    "checkpointed": {"training": CHECKPOINTED},
    "accumulated": {"training": {"gradient_accumulation_steps": 4}},
    "lora": {"adapter": LORA},
    "adafactor": {"optimizer": "adafactor"},
    "8-bit": {"optimizer": {"name": "adamw", "bits": 8}},
    "galore": {"optimizer": {"name": "galore", "rank": 8}},
    "galore, layerwise": {
        "optimizer": {"name": "galore", "rank": 8, "layerwise": True},
        "training": {"max_grad_norm": 0},
    },
    "lomo": {"optimizer": "lomo", "training": {"max_grad_norm": 0}},
    "badam": {"optimizer": "badam"},
    "dpo": {"stage": DPO},
    "kto": {"stage": "kto"},
    "reward": {"stage": "reward"},
    "grpo": {"stage": GRPO},
    "grpo, reference": {"stage": {**GRPO, "beta": 0.1, "num_iterations": 2}},
    "grpo, lora": {"stage": {**GRPO, "beta": 0.1, "reference": "base"}, "adapter": LORA},
    "online_dpo": {"stage": {"name": "online_dpo", **DRAWN}},
    "ppo": {"stage": {"name": "ppo", "beta": 0.1, **DRAWN}},
    "spectrum": {"adapter": {"name": "spectrum", "top_fraction": 0.5}},
    "selective": {"accelerators": ["activation_checkpointing"]},
}


@pytest.mark.parametrize(
    "name", [*RECIPES, *(pytest.param(name, marks=pytest.mark.long) for name in FURTHER)]
)
def test_planned_bytes_are_those_of_a_real_run(tmp_path, name):
    recipe = resolved(tmp_path, **(RECIPES | FURTHER)[name])
    run = real(recipe)
    plan = planned(recipe, whole=True)
    assert plan.peak.peak == pytest.approx(run.peak.peak, rel=0.15)
    for part in PARTS:
        assert plan.held[part] == pytest.approx(run.held[part], rel=0.15, abs=4096), part
    # an answer may end before max_new_tokens
    assert run.tokens <= plan.tokens if "grpo" in name else run.tokens == plan.tokens
    assert plan.flops == pytest.approx(run.flops, rel=0.05)


LAYERED = {
    "freeze": {"adapter": {"name": "freeze", "trainable_layers": 2}},
    "lora, checkpointed": {"adapter": LORA, "training": CHECKPOINTED},
    "grpo": {"stage": GRPO},
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long if name == "grpo" else ()) for name in LAYERED],
)
def test_a_few_layers_tell_what_all_take(tmp_path, name):
    recipe = resolved(tmp_path, **{"layers": 7, "hidden": 64, **LAYERED[name]})
    few, every = planned(recipe), planned(recipe, whole=True)
    assert few.peak.peak == pytest.approx(every.peak.peak, rel=0.01)
    assert few.flops == pytest.approx(every.flops, rel=0.01)
    for part in PARTS:
        assert few.held[part] == pytest.approx(every.held[part], rel=0.01, abs=4096), part


def test_a_config_with_two_kinds_of_layers_is_enough(tmp_path):
    config = Gemma3TextConfig(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=16,
    )
    assert len(set(config.layer_types)) == 2
    config.save_pretrained(tmp_path)
    recipe = resolved(tmp_path, model=str(tmp_path), family="gemma", template="gemma")
    few, every = planned(recipe), planned(recipe, whole=True)
    assert few.peak.peak == pytest.approx(every.peak.peak, rel=0.01)
    assert few.held["weights"] == every.held["weights"]


@pytest.mark.long
def test_blocks_in_random_order_take_about_as_much(tmp_path):
    recipe = resolved(tmp_path, layers=7, hidden=64, optimizer="badam")
    few, every = planned(recipe), planned(recipe, whole=True)
    assert few.peak.peak == pytest.approx(every.peak.peak, rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("bits", [4, 8])
def test_planned_bytes_of_quantized_weights(tmp_path, bits):
    worker = Path(__file__).parent / "quantized_worker.py"
    told = subprocess.run(
        [sys.executable, worker, tmp_path, str(bits)], capture_output=True, text=True, check=True
    )
    run, plan = map(int, told.stdout.split()[-2:])
    assert plan == pytest.approx(run, rel=0.15)
