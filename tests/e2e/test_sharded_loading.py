"""Accelerator fsdp builds models without weights: each rank then gets its shard of them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import forked
from tunewright.check import resolve
from tunewright.run import Run
from tunewright.types import Head

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "docs" / "examples" / "data"
RECIPE = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, device: cpu}}
template: chatml
data: [{{path: {DATA}/wren.jsonl}}]
stage: sft
training: {{max_steps: 1, max_length: 256, per_device_train_batch_size: 1, precision: fp32}}
loggers: []
output: nowhere
"""
SHARDED = ["accelerators=[fsdp]"]


def sharded(folder: Path, runs: list[list[str]], *arguments: str) -> Any:
    """Load each recipe, a list of overrides of RECIPE, on two ranks."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    written = [
        [str(recipe), f"output={folder / f'run{number}'}", *SHARDED, *overrides]
        for number, overrides in enumerate(runs)
    ]
    script = HERE / "sharded_loading_worker.py"
    return forked.run(script, str(folder), json.dumps(written), *arguments, processes=2)


def load(folder: Path, overrides: list[str], trainable: bool = True) -> Any:
    """The model as one process loads it."""
    (folder / "one.yaml").write_text(RECIPE)
    head: Head = "score" if "stage=reward" in overrides else "causal_lm"
    return Run(resolve(folder / "one.yaml", overrides)).load(trainable=trainable, head=head)


def save(folder: Path, *overrides: str) -> str:
    """Save a tiny twin as a checkpoint."""
    loaded = load(folder, list(overrides), trainable=False)
    path = folder / "-".join(["checkpoint", *(each.rpartition("=")[2] for each in overrides)])
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes have: SVD rounds in another way with several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_models_are_those_of_one_process(tmp_path: Path) -> None:
    """Tied weights, buffers that no file holds, experts that are stored one by one, new heads,
    adapters and weights that are widened."""
    tied = f"model={save(tmp_path)}"
    experts = f"model={save(tmp_path, 'family.tiny_variant=qwen3_moe')}"
    gemma = save(tmp_path, "family.name=gemma")
    saved = "adapter={name: lora, rank: 4, modules_to_save: [embed_tokens]}"
    dora = "adapter={name: lora, rank: 4, dora: true}"
    runs = [
        [tied, "adapter=full"],
        [tied, "adapter=full", "family.dtype=bfloat16"],
        [tied, "adapter=freeze"],
        [tied, "adapter=full", "stage=reward", f"data=[{{path: {DATA}/wren_pairs.jsonl}}]"],
        [tied, "adapter={name: lora, rank: 4}"],
        [experts, saved],
        [tied, dora, "family.dtype=bfloat16"],
        [experts, "adapter=full"],
        [f"model={gemma}", "family.name=gemma", "template=gemma3", "adapter=full"],
        [tied, "adapter={name: lora, rank: 4, init: pissa}"],  # which is loaded whole
        ["model=tiny", "adapter=full"],  # as is this
    ]
    done = sharded(tmp_path, runs)
    assert not any(done.codes), done.error[-5000:]
    for number, overrides in enumerate(runs):
        found = load_file(tmp_path / f"{number}.safetensors")
        model = load(tmp_path, overrides).model.float()  # as precision fp32 has it
        expected = dict(model.named_parameters())
        expected |= {f"buffer {name}": each for name, each in model.named_buffers()}
        assert found.keys() == expected.keys(), overrides
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor.detach()), f"{overrides}: {name}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_no_rank_holds_the_model(tmp_path: Path) -> None:
    """In fp32 the model has 211 MB, a shard of it half of that, and a layer 13 MB."""
    config = LlamaConfig(
        vocab_size=1280,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=16,
        num_attention_heads=8,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    size = 4 * model.num_parameters()
    model.save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(save(tmp_path)).save_pretrained(tmp_path / "large")
    del model
    large, llama = f"model={tmp_path / 'large'}", "family={name: llama, device: cpu}"
    # meta: half, and a few layers that are gathered where a few tokens are tried
    # whole: mapped from the file, and widened layer by layer; of all layers at once it was 1.1
    for name, bound in (("meta", 0.85), ("whole", 0.95)):
        folder = tmp_path / name
        folder.mkdir()
        done = sharded(folder, [[large, llama, "adapter=full"]], name)
        assert not any(done.codes), done.error[-5000:]
        peaks = [json.loads((folder / f"0-{rank}.json").read_text()) for rank in (0, 1)]
        assert max(peaks) < bound * size, [peak / size for peak in peaks]
        events = (folder / "run0" / "events.jsonl").read_text()
        assert ("each rank loads the whole model" in events) == (name == "whole")


def failed(folder: Path, *arguments: str) -> list[str]:
    """What both ranks say of a checkpoint that they do not train."""
    done = sharded(folder, [[f"model={folder / 'checkpoint'}", "adapter=full"]], *arguments)
    assert not any(done.codes), done.error[-5000:]
    return [json.loads((folder / f"0-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_all_ranks_fail_where_rank_0_cannot_load(tmp_path: Path) -> None:
    path = Path(save(tmp_path))
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    first, second = failed(tmp_path)
    assert "model.norm.weight holds numbers that are not finite" in first
    assert "rank 0 could not load the weights" in second


@pytest.mark.slow
def test_weights_that_come_later_are_tried_on_a_few_tokens(tmp_path: Path) -> None:
    """Each weight is finite, and their product is not."""
    path = Path(save(tmp_path))
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"].fill_(3e38)
    weights["model.embed_tokens.weight"] *= 1000
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    for said in failed(tmp_path):
        assert said == "gives numbers that are not finite"


@pytest.mark.slow
def test_all_ranks_stop_where_rank_0_is_asked_to_while_it_loads(tmp_path: Path) -> None:
    save(tmp_path)
    assert failed(tmp_path, "stopped") == ["stopped as asked", "stopped as rank 0 was asked"]
