"""Accelerator fsdp on two processes: the losses, the result and the resumed run of one process."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from e2e.test_launch import free_port, train

LORA = "adapter={name: lora, rank: 4}"


def two(output: str, cwd: Path, *more: str) -> list[dict]:
    spread = ["accelerators=[fsdp]", "launch.processes=2", f"launch.main_port={free_port()}"]
    return train(output, cwd, "training.per_device_train_batch_size=2", *spread, *more)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "model").glob("*model.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["adapter=full", LORA], ids=["full", "lora"])
def test_two_processes_are_one_and_resume_as_one(tmp_path: Path, adapter: str) -> None:
    how = [adapter, "training.batching=random", "training.gradient_accumulation_steps=2", "training.save_steps=2"]
    one = train("one", tmp_path, "training.per_device_train_batch_size=4", *how)
    spread = two("two", tmp_path, *how)
    assert [line["loss"] for line in spread] == pytest.approx([line["loss"] for line in one], rel=1e-5)
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=1e-5), name

    # resumed from the middle, with the checkpoint of the end taken away
    last = max((tmp_path / "two/checkpoints").iterdir())
    (last / "manifest.json").unlink()
    run = tmp_path / "two/run.json"
    run.write_text(run.read_text().replace('"completed"', '"interrupted"'))
    again = two("two", tmp_path, *how, "--resume")
    assert [line["loss"] for line in again[-2:]] == [line["loss"] for line in spread[-2:]]
    assert all(torch.equal(tensor, found[name]) for name, tensor in weights(tmp_path / "two").items())


def test_one_process_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="fsdp needs several processes"):
        train("one", tmp_path, "accelerators=[fsdp]")


@pytest.mark.slow
def test_the_best_evaluation_is_the_one_of_one_process(tmp_path: Path) -> None:
    """The loss falls, and is said to be better the higher it is: the first evaluation is the best."""
    best = ["load_best_model_at_end=true", "greater_is_better=true", "early_stopping_patience=2", "eval_steps=1"]
    best += ["warmup_steps=0", "batching=random"]
    how = ["dataset.validation=0.2", *(f"training.{each}" for each in best)]
    train("one", tmp_path, "training.per_device_train_batch_size=4", *how)
    two("two", tmp_path, *how)
    one, spread = (json.loads((tmp_path / name / "run.json").read_text())["stages"][0] for name in ("one", "two"))
    assert (spread["steps"], spread["metrics"]["best_step"]) == (one["steps"], one["metrics"]["best_step"]) == (3, 1)
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(found[name], tensor, atol=1e-5) for name, tensor in expected.items())
