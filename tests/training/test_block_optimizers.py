"""Optimizers that switch which parameters are trained, on two ranks."""

from pathlib import Path

import pytest
import torch
from blocks_worker import SETTINGS, start
from loop_setup import go
from training_setup import rows

import forked
from tunewright_hf.checkpoints.state_codec import load_state

HERE = Path(__file__).parent


def on_two_ranks(folder: Path, *arguments: str) -> None:
    done = forked.run(HERE / "blocks_worker.py", str(folder), *arguments, processes=2)
    assert done.codes == [0, 0], done.error[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "lisa"])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_two_ranks_are_one_with_twice_the_batch(tmp_path: Path, way: str, method: str) -> None:
    on_two_ranks(tmp_path, way, method)
    made, build = start(method)
    more = {"data": rows(32), "per_device_train_batch_size": 4, **SETTINGS}
    go(tmp_path / "one", build, made, **more)
    one, two = (
        load_state(tmp_path / name / "checkpoints" / "step-30", "weights")
        for name in ("one", "run")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(two[name], tensor, rtol=1e-4, atol=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_ranks_that_choose_different_blocks_are_refused(tmp_path: Path, way: str) -> None:
    on_two_ranks(tmp_path, way, "full", "apart")
    for rank in (0, 1):
        found = (tmp_path / f"error-{rank}").read_text()
        assert "ranks train different parameters" in found
