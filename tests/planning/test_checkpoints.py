"""Plans of checkpoints in folders, from their config alone, beside real runs of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from planning_setup import planned, real, resolved, workload
from transformers import AutoModelForCausalLM, LlamaConfig

from tunewright.run import Run
from tunewright_hf.planning.loading import placeholder_tokenizer
from tunewright_hf.planning.plan import Planner
from tunewright_hf.planning.probe import run_steps


def recipe_of(folder, dtype, length, sizes, **sections):
    """A recipe for a Llama with random weights."""
    config = LlamaConfig(num_attention_heads=8, vocab_size=1000, **sizes)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder / "model")
    placeholder_tokenizer().save_pretrained(folder / "model")
    training = {"max_length": length, "per_device_train_batch_size": 2, "precision": "bf16"}
    model = str(folder / "model")
    return resolved(folder, model=model, family="llama", training=training, **sections)


def test_a_config_tells_what_a_checkpoint_takes(tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    recipe = recipe_of(tmp_path, torch.bfloat16, 64, sizes, adapter="lora")
    plan = planned(recipe)
    for path in (tmp_path / "model").glob("*.safetensors"):
        path.rename(tmp_path / path.name)
    again = planned(recipe)  # the weights are not looked at
    assert again.peak.peak == pytest.approx(plan.peak.peak, rel=0.01)
    for path in tmp_path.glob("*.safetensors"):
        path.rename(tmp_path / "model" / path.name)
    run = real(recipe)
    assert plan.peak.peak == pytest.approx(run.peak.peak, rel=0.15)


@pytest.mark.gpu
@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_allocated_memory_of_a_gpu(tmp_path, adapter):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    recipe = recipe_of(tmp_path, torch.bfloat16, 1024, sizes, adapter=adapter)
    plan = Planner(read_data=False).plan(recipe)
    torch.cuda.reset_peak_memory_stats()
    run_steps(Run(recipe), 0, workload(recipe))
    expected = torch.cuda.max_memory_allocated()
    assert plan.peak - plan.memory["overhead"] == pytest.approx(expected, rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize(
    "sections", [{}, {"adapter": {"name": "lora", "rank": 8}}, {"optimizer": "adafactor"}], ids=str
)
def test_resident_memory_from_100_m_parameters(tmp_path, sections):
    worker = Path(__file__).parent / "rss_worker.py"
    told = subprocess.run(
        [sys.executable, worker, tmp_path, json.dumps(sections)],
        capture_output=True,
        text=True,
        check=True,
        # what is freed goes back to the system at once, else RSS has pieces of it
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    real, plan = map(int, told.stdout.split()[-2:])
    assert plan == pytest.approx(real, rel=0.15)
