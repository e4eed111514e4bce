"""A training whose evaluations are known, and what it leaves."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_setup import loaded, model, rows, run_training

from tunewright_hf.checkpoints.folder import checkpoints
from tunewright_hf.training.stage_trainer import StageTrainer

#: what the evaluations after steps 2, 4, … find; the best is the third
CURVE = [3.0, 2.0, 1.0, 1.5, 1.2, 1.1]
SETTINGS = {"max_steps": 12, "eval_steps": 2, "logging_steps": 2}


@pytest.fixture
def curve(monkeypatch):
    """Evaluation sets have the losses of CURVE, one after the other, in place of their own."""
    from tunewright_hf.training.causal_lm import CausalTrainer

    own = CausalTrainer.evaluate_one
    found: list[float] = list(CURVE)

    def evaluate_one(self: StageTrainer, name: str, rows: object) -> dict[str, float]:
        assert own(self, name, rows)["loss"] > 0
        return {
            "loss": found[self.step // 2 - 1],
            "accuracy": self.step / 10,
        }

    monkeypatch.setattr(CausalTrainer, "evaluate_one", evaluate_one)
    return found


def train(folder: Path, made=None, evals=("it",), **settings):
    sets = {name: rows(6, seed=3) for name in evals}
    return run_training(folder, made or loaded(model()), evals=sets, **SETTINGS | settings)


def notices(run) -> list[str]:
    return [event.message for event in run.events if type(event).__name__ == "Notice"]


def steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints(folder / "checkpoints")]


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next((folder / "model").glob("*model.safetensors")))


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def evaluated(run) -> dict[int, dict[str, float]]:
    return {
        event.step: event.metrics for event in run.events if type(event).__name__ == "Evaluated"
    }
