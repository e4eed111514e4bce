"""A native class on two processes: the result of one, with what the original lacks in it."""

import json
from pathlib import Path

import pytest
import torch
from native_setup import TWINS, checkpoint, template
from safetensors.torch import load_file
from test_native_path import export

import forked

WORKER = Path(__file__).parents[1] / "e2e" / "sharding_worker.py"
DATA = Path(__file__).parents[2] / "docs" / "examples" / "data" / "wren.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("twin", ["telechat2", "deepseek_moe"])
def test_two_processes_are_one(tmp_path: Path, twin: str) -> None:
    made = checkpoint(twin, tmp_path / "checkpoint")
    recipe = {
        "model": str(made.folder),
        "family": {"name": TWINS[twin][0], "device": "cpu"},
        "template": template(twin),
        "adapter": "full",
        "stages": ["sft"],
        "data": [{"path": str(DATA)}],
        "training": {
            "max_steps": 2,
            "max_length": 256,
            "learning_rate": 0.001,
            "precision": "fp32",
            "batching": "random",
        },
        "loggers": [],
        "output": "nowhere",
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    exported = []
    for processes, more in ((1, []), (2, ["accelerators=[fsdp]"])):
        run = tmp_path / f"run-{processes}"
        batch = f"training.per_device_train_batch_size={4 // processes}"
        runs = [[str(tmp_path / "recipe.yaml"), f"output={run}", batch, *more]]
        done = forked.run(WORKER, json.dumps(runs), processes=processes)
        assert not any(done.codes), done.error[-5000:]
        assert export(run, tmp_path / f"exported-{processes}").exit_code == 0
        exported.append(load_file(tmp_path / f"exported-{processes}" / "model.safetensors"))
    one, two = exported
    assert one.keys() == two.keys() == made.tensors.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=2e-4), name
        assert not torch.equal(one[name], made.tensors[name]), name
