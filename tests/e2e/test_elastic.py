"""A run goes on with another number of processes, or with another accelerator, as if nothing had
interrupted it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import forked
from e2e.sharding_setup import DATA
from tunewright.errors import TunewrightError
from tunewright.run import train

WORKER = Path(__file__).with_name("elastic_worker.py")
RECIPE = f"""
model: tiny
family: {{name: qwen, tiny_hidden_size: 16, tiny_layers: 2, device: cpu}}
template: chatml
adapter: full
stage: sft
data: [{{path: {DATA}/wren.jsonl}}]
training:
  learning_rate: 3.0e-4
  max_steps: 6
  max_length: 256
  precision: fp32
  save_steps: 3
  logging_steps: 1
loggers: [jsonl]
output: nowhere
"""
BY_ROW = ["training.batching=random", "training.rows_per_step=12"]
SMALL = "training.per_device_train_batch_size=2"
#: ways of batching: with one process, two and three
BATCHES = {
    "random": {1: [*BY_ROW, SMALL], 2: [*BY_ROW, SMALL], 3: [*BY_ROW, SMALL]},
    "packed": {
        1: ["stage.packing=true", "training.gradient_accumulation_steps=2", SMALL],
        2: ["stage.packing=true", SMALL],
    },
    "tokens": {
        1: ["training.tokens_per_batch=1024", "training.gradient_accumulation_steps=2"],
        2: ["training.tokens_per_batch=1024"],
    },
    "streamed": {
        each: ["dataset={name: chat, streaming: true}", *BY_ROW, SMALL] for each in (1, 2, 3)
    },
}
#: how a run begins, and goes on: batches, processes, accelerators
CASES = {
    "2 to 1": ("random", 2, [], 1, []),
    "1 to 2": ("random", 1, [], 2, []),
    "2 to 3": ("random", 2, [], 3, []),
    "fsdp 2 to plain 1": ("random", 2, ["fsdp"], 1, []),
    "fsdp 2 to fsdp 3": ("random", 2, ["fsdp"], 3, ["fsdp"]),
    "plain 2 to fsdp 2": ("random", 2, [], 2, ["fsdp"]),
    "fsdp 2 to ZeRO-3 2": ("random", 2, ["fsdp"], 2, ["{name: deepspeed, stage: 3}"]),
    "ZeRO-3 2 to plain 1": ("random", 2, ["{name: deepspeed, stage: 3}"], 1, []),
    "ZeRO-2 2 to fsdp 3": ("random", 2, ["{name: deepspeed, stage: 2}"], 3, ["fsdp"]),
    "plain 1 to ZeRO-3 3": ("random", 1, [], 3, ["{name: deepspeed, stage: 3}"]),
    "packed": ("packed", 2, [], 1, []),
    "tokens": ("tokens", 2, [], 1, []),
    "streamed": ("streamed", 2, [], 3, []),
}


def all_of(folder: Path, runs: dict[str, tuple[int, list[str]]], *more: str) -> None:
    """Run what has the same number of processes in the same processes. runs: output → processes
    and overrides."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE)
    for processes in (1, 2, 3):
        lists = [
            [str(recipe), f"output={folder / name}", *overrides]
            for name, (count, overrides) in runs.items()
            if count == processes
        ]
        if lists:
            done = forked.run(WORKER, json.dumps(lists), *more, processes=processes)
            assert not any(done.codes), done.error[-4000:]


def overrides(batches: str, processes: int, accelerators: list[str]) -> tuple[int, list[str]]:
    chosen = f"accelerators=[{','.join(accelerators)}]"
    return processes, [*BATCHES[batches][processes], chosen]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic")
    whole = {batches: overrides(batches, 1, []) for batches in BATCHES}
    all_of(folder, whole | {name: overrides(*case[:3]) for name, case in CASES.items()})
    for name in CASES:
        (folder / name / "checkpoints" / "step-6" / "manifest.json").unlink()
        state = json.loads((folder / name / "run.json").read_text())
        changed = state | {"status": "interrupted", "stages": []}
        (folder / name / "run.json").write_text(json.dumps(changed))
    goes_on = {name: overrides(case[0], *case[3:]) for name, case in CASES.items()}
    all_of(folder, goes_on, "resume")
    return folder


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_as_if_uninterrupted(runs: Path, case: str) -> None:
    whole = [line for line in lines(runs / CASES[case][0], "metrics.jsonl") if line["step"] > 3]
    again = [line for line in lines(runs / case, "metrics.jsonl") if line["step"] > 3]
    assert [line["step"] for line in again] == [4, 5, 6]
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [line[name] for line in again] == pytest.approx(
            [line[name] for line in whole], abs=2e-6
        )
    expected, found = (
        load_file(run / "model" / "model.safetensors")
        for run in (runs / CASES[case][0], runs / case)
    )
    assert all(torch.allclose(found[name], expected[name], atol=2e-6) for name in expected)


@pytest.mark.slow
def test_what_is_then_not_exact_is_said(runs: Path) -> None:
    for case, said in (("2 to 1", True), ("plain 2 to fsdp 2", False)):
        events = lines(runs / case, "events.jsonl")
        notices = [str(event.get("message")) for event in events]
        assert any("goes on with 1 in place of 2 processes" in each for each in notices) == said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("training.rows_per_step=8", "units_per_step was 12, is 8"),
        ("training.rows_per_step=13", "training.rows_per_step: is 13, and 1 processes with 2 each"),
        ("training.learning_rate=1e-3", "learning_rate was 0.0003"),
        ("accelerators=[neftune]", "accelerators"),
    ],
)
def test_other_rows_and_other_training_are_refused(
    runs: Path, tmp_path: Path, change: str, problem: str
) -> None:
    shutil.copytree(runs / "2 to 1", tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    changed = state | {"status": "interrupted", "stages": []}
    (tmp_path / "run" / "run.json").write_text(json.dumps(changed))
    output = f"output={tmp_path / 'run'}"
    with pytest.raises(TunewrightError, match=problem):
        train(runs / "recipe.yaml", overrides=[*BY_ROW, SMALL, output, change], resume=True)
