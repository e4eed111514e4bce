"""Steps after which checkpoints are written and evaluations run."""

import pytest
from training_setup import loaded, model, rows, run_training

from tunewright import events
from tunewright.recipe import Training
from tunewright_hf.checkpoints.folder import checkpoints
from tunewright_hf.training.intervals import is_due


def due(steps: int, per_epoch: int, *, every: int | None = None) -> list[int]:
    """Steps of two epochs of `steps` steps after which something is due."""

    def epoch_at(step: int) -> float:
        return step / steps

    return [step for step in range(1, 2 * steps + 1) if is_due(epoch_at, step, every, per_epoch)]


def test_per_epoch() -> None:
    assert due(12, 1) == [12, 24]
    assert due(12, 4) == [3, 6, 9, 12, 15, 18, 21, 24]
    assert due(10, 3) == [4, 7, 10, 14, 17, 20]
    assert due(2, 5) == [1, 2, 3, 4]  # more often than there are steps
    assert len(due(997, 7)) == 14


def test_steps() -> None:
    assert due(12, 1, every=5) == [5, 10, 15, 20]


def test_evaluations_and_checkpoints_by_epoch(tmp_path):
    """Six steps an epoch, two epochs."""
    settings = {"per_device_train_batch_size": 1, "batching": "random", "save_total_limit": 9}
    often = {"evals_per_epoch": 3, "saves_per_epoch": 2, "max_steps": None, "epochs": 2}
    evals = {"it": rows(3, seed=1)}
    run, _ = run_training(tmp_path, loaded(model()), rows(6), evals=evals, **settings, **often)
    found = [event.step for event in run.events if isinstance(event, events.Evaluated)]
    assert found == [2, 4, 6, 8, 10, 12]
    kept = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert kept == ["step-3", "step-6", "step-9", "step-12"]


@pytest.mark.parametrize("kind", ["save", "eval"])
def test_steps_and_times_per_epoch_exclude_each_other(kind):
    with pytest.raises(ValueError, match=f"{kind}_steps and {kind}s_per_epoch exclude"):
        Training(**{f"{kind}_steps": 5, f"{kind}s_per_epoch": 2})
