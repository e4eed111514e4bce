"""Hosts that share no folder, and real ones in network namespaces, train as one process does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import forked
from e2e.hosts_setup import BATCHES, WORKER, errors, further, hosts, launched, two
from e2e.sharding_setup import DATA
from e2e.test_elastic import RECIPE
from tunewright.run import train

__all__ = ["hosts"]


#: two stages, the second of which continues from the first one's result; saved at step 3 of each
TWICE = RECIPE.replace("stage: sft", "stages: [{name: sft}, {name: sft}]")
STAGES = ["training.load_best_model_at_end=true"]
STAGES += ["dataset={name: chat, validation: 0.1}", "training.eval_steps=3"]


def apart(folder: Path, *both: str, accelerators: str = "", recipe: str = RECIPE) -> forked.Done:
    """Train on two hosts that share no folder: the same relative output, below folders of their
    own, one rank each."""
    (folder / "recipe.yaml").write_text(recipe)
    overrides = [*BATCHES, "output=run", f"accelerators=[{accelerators}]", *both]
    folders = [str(folder / name) for name in "ab"]
    for each in folders:
        Path(each).mkdir(exist_ok=True)
    arguments = json.dumps([str(folder / "recipe.yaml"), [overrides] * 2, ["", ""], folders])
    host = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return forked.run(WORKER, arguments, processes=2, patience=30, variables=host)


def interrupt(run: Path, after: int) -> None:
    """Leave a run as one that was killed after step 3 of its stage number `after`."""
    state = json.loads((run / "run.json").read_text())
    name = f"stages/{after}-sft" if (run / "stages").exists() else "."
    shutil.rmtree(run / name / "model")
    (run / name / "checkpoints" / "step-6" / "manifest.json").unlink()
    changed = {"status": "interrupted", "stages": state["stages"][: after - 1]}
    (run / "run.json").write_text(json.dumps(state | changed))


@pytest.mark.slow
@pytest.mark.parametrize("accelerators", ["", further("fsdp")])
def test_hosts_need_no_shared_folder(tmp_path: Path, accelerators: str) -> None:
    done = apart(tmp_path, *STAGES, accelerators=accelerators, recipe=TWICE)
    assert done.codes == [0, 0], done.error[-3000:]
    run = tmp_path / "a" / "run"
    saved = run / "stages" / "2-sft"
    assert list((tmp_path / "b").iterdir()) == []
    assert {"rng-0.json", "rng-1.json"} <= {
        path.name for path in (saved / "checkpoints" / "step-3").iterdir()
    }
    before = (saved / "model" / "model.safetensors").read_bytes()
    interrupt(run, 2)
    done = apart(tmp_path, *STAGES, "--resume", accelerators=accelerators, recipe=TWICE)
    assert done.codes == [0, 0], done.error[-3000:]
    assert (saved / "model" / "model.safetensors").read_bytes() == before
    assert list((tmp_path / "b").iterdir()) == []


#: a reward model, then stages that generate and ask it on both hosts
GENERATING = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, tiny_layers: 1, device: cpu}}
template: chatml
stages:
  - {{name: reward, data: [{{path: {DATA}/wren_pairs.jsonl}}]}}
  - name: ppo
    rewards: [reward_model]
    max_new_tokens: 4
    ppo_epochs: 2
  - name: grpo
    rewards: [reward_model, {{name: length, target: 12}}]
    num_generations: 3
    max_new_tokens: 4
    beta: 0.1
data: [{{path: prompts.jsonl}}]
training:
  max_steps: 2
  logging_steps: 1
  learning_rate: 1.0e-3
  lr_scheduler_type: constant
  batching: random
  max_length: 256
  precision: fp32
loggers: [jsonl]
output: nowhere
"""


@pytest.mark.slow
def test_hosts_share_the_generation_of_answers(tmp_path: Path) -> None:
    asked = [f"What is {word}?" for word in ("a", "wren", "nest", "egg", "song")]
    rows = [json.dumps({"prompt": each}) for each in asked]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    done = apart(tmp_path, recipe=GENERATING)
    assert done.codes == [0, 0], done.error[-3000:]
    assert list((tmp_path / "b").iterdir()) == []
    one = ["training.per_device_train_batch_size=4", f"output={tmp_path / 'one'}"]
    train(tmp_path / "recipe.yaml", overrides=one)
    expected, found = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (tmp_path / "one", tmp_path / "a" / "run")
    )
    assert [(line["stage"], line["step"]) for line in found] == [
        (name, step) for name in ("reward", "ppo", "grpo") for step in (1, 2)
    ]
    for theirs, ours in zip(found, expected, strict=True):
        for name in ours.keys() - {"stage", "time", "tokens_per_second", "memory"}:
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4, abs=1e-5), name


@pytest.mark.slow
def test_a_run_that_is_in_the_way_ends_all(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = f"output={tmp_path / 'a' / 'run'}"
    train(tmp_path / "recipe.yaml", overrides=["training.max_steps=1", run])
    done = apart(tmp_path, "training.max_steps=1")
    assert done.codes == [2, 1], done.error[-3000:]
    first, other = errors(done)
    assert "holds a run that is completed" in first
    assert "rank 0" in other and "has ended: see what it said there" in other


@pytest.mark.slow
@pytest.mark.parametrize("by", ["the variables", further("torchrun")])
def test_two_hosts_train_as_one_process_does(
    tmp_path: Path, hosts: tuple[str, str], by: str
) -> None:
    if by == "torchrun":
        same = [*BATCHES, f"output={tmp_path / 'run'}"]
        assert not launched(tmp_path, same, same, codes=[0, 0], netns=hosts)
    else:
        done = two(tmp_path, [], [], netns=hosts)
        assert done.codes == [0, 0], done.error[-3000:]
    one = tmp_path / "one"
    overrides = [[*BATCHES, "training.gradient_accumulation_steps=2", f"output={one}"]]
    done = forked.run(
        Path(__file__).with_name("elastic_worker.py"),
        json.dumps([[str(tmp_path / "recipe.yaml"), *overrides[0]]]),
    )
    assert done.codes == [0], done.error[-3000:]
    expected, found = (
        load_file(run / "model" / "model.safetensors") for run in (one, tmp_path / "run")
    )
    assert all(torch.allclose(found[name], expected[name], atol=2e-6) for name in expected)
