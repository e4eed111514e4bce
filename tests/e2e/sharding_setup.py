"""Runs whose model is spread over two processes, beside the same runs on one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import forked
from tunewright import RecipeError
from tunewright.check import resolve
from tunewright.run import Run, train

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "docs" / "examples" / "data"
#: sft, then dpo on what it made; evaluated and saved at step 2 of each, in the middle
RECIPE = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, tiny_layers: 2, device: cpu}}
template: chatml
stages:
  - name: sft
    data: [{{path: {DATA}/wren.jsonl}}]
    eval_data: {{held: [{{path: {DATA}/wren.jsonl}}]}}
  - name: dpo
    data: [{{path: {DATA}/wren_pairs.jsonl}}]
    eval_data: {{held: [{{path: {DATA}/wren_pairs.jsonl}}]}}
training:
  learning_rate: 3.0e-4
  max_steps: 4
  max_length: 256
  batching: random
  gradient_accumulation_steps: 2
  save_steps: 2
  eval_steps: 2
  logging_steps: 1
loggers: [jsonl]
output: nowhere
"""
#: the same steps in different ways, by name
CELLS = {
    "full": ["adapter=full", "training.precision=fp32"],
    "lora": ["adapter={name: lora, rank: 4}", "training.precision=fp32"],
    "bf16": ["adapter=full", "training.precision=bf16"],
}
#: of which DeepSpeed has no counterpart: it keeps all weights in bf16, and copies in fp32
OF_FSDP = {
    "pure": ["adapter=full", "training.precision=pure_bf16", "training.stochastic_rounding=true"],
    "half": ["adapter=full", "training.precision=bf16", "family.dtype=bfloat16"],
    "qlora": ["adapter={name: lora, rank: 4}", "quantizer=bitsandbytes", "training.precision=fp32"],
    "half-lora": [
        "adapter={name: lora, rank: 4}",
        "training.precision=bf16",
        "family.dtype=bfloat16",
    ],
}
TIMING = ("time", "tokens_per_second", "memory")


def train_all(folder: Path, processes: int, cells: list[str], *more: str) -> None:
    """Train cells on a checkpoint, each into the folder of its name; on two processes, resume them
    too."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    save_checkpoint(recipe, folder / "checkpoint")
    more = (f"model={folder / 'checkpoint'}", *more)
    batch = f"training.per_device_train_batch_size={4 // processes}"
    runs = [
        [str(recipe), f"output={folder / cell}", batch, *(CELLS | OF_FSDP)[cell], *more]
        for cell in cells
    ]
    resume = ["resume"] if processes > 1 else []
    done = forked.run(HERE / "sharding_worker.py", json.dumps(runs), *resume, processes=processes)
    assert not any(done.codes), done.error[-5000:]
    assert "no-op" not in done.error  # of weights that are copied to the meta device


def save_checkpoint(recipe: Path, folder: Path) -> None:
    """Save the recipe's tiny model."""
    loaded = Run(resolve(recipe)).load(trainable=False)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def check_refused_alone(folder: Path, name: str) -> None:
    """One process is no reason to do something else than was asked for."""
    (folder / "recipe.yaml").write_text(RECIPE)
    overrides = [f"output={folder / 'one'}", f"accelerators=[{name}]"]
    with pytest.raises(RecipeError, match=f"{name} needs several processes"):
        train(folder / "recipe.yaml", overrides=overrides)


def logged(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of all stages, by stage and name."""
    files = sorted(run.glob("stages/*/model/*model.safetensors"))
    assert len(files) == 2
    return {
        f"{file.parts[-3]}: {name}": tensor
        for file in files
        for name, tensor in load_file(file).items()
    }


def check_equal(one: Path, two: Path) -> None:
    """Two processes gave the losses, gradients and results of one."""
    for name in ("loss", "grad_norm", "rewards/margins"):
        check_near(one, two, name, rel=1e-5)
    expected, found = weights(one), weights(two)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), (
            f"{name}: {(found[name] - tensor).abs().max()}"
        )


def check_near(one: Path, two: Path, name: str, rel: float) -> None:
    """A metric of all steps and evaluations is about the same, and results are kept in the same
    number formats."""
    expected, found = ([line[name] for line in logged(run) if name in line] for run in (one, two))
    assert expected, name
    assert found == pytest.approx(expected, rel=rel, abs=1e-6), name
    assert {each: tensor.dtype for each, tensor in weights(one).items()} == {
        each: tensor.dtype for each, tensor in weights(two).items()
    }
    for config in one.glob("stages/*/model/config.json"):  # an adapter has none
        same = two / config.relative_to(one)
        assert json.loads(same.read_text()) == json.loads(config.read_text())


def check_resumed(run: Path) -> None:
    """Resumed in the middle of each stage, it went on as if nothing had been."""
    whole = run.with_name(f"{run.name}-whole")
    expected, found = ([line for line in logged(each) if line["step"] > 2] for each in (whole, run))
    assert len(expected) == 6  # of each stage steps 3, 4 and an evaluation
    assert found == expected
    expected, found = weights(whole), weights(run)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not [
        path
        for path in run.rglob("checkpoints/**/*")
        if path.suffix not in ("", ".json", ".safetensors")
    ]
