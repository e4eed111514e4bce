"""The evaluation of a model in training."""

from typing import TYPE_CHECKING

import torch

from tunewright import events
from tunewright_hf.checkpoints.state_codec import rng_state, set_rng_state
from tunewright_hf.training.stage_trainer import StopRequested

if TYPE_CHECKING:
    from tunewright_hf.training.loop import TrainingLoop


def evaluate(loop: "TrainingLoop") -> dict[str, dict[str, float]]:
    """Metrics of each evaluation set.

    Raises StopRequested between two batches. A checkpoint that is then written says by its progress
    `unevaluated` that the evaluation is to be done, and has the random numbers that it began with.
    """
    progress, before = loop.trainer.progress, rng_state()
    progress["unevaluated"] = True
    loop.model.eval()
    found: dict[str, dict[str, float]] = {}
    try:
        with loop.trainer.evaluation_mode():
            for name, rows in loop.trainer.evals.items():
                with torch.no_grad(), loop.trainer.autocast():
                    found[name] = loop.trainer.evaluate_one(name, rows)
                progress["metrics"] |= {f"{name}_{key}": each for key, each in found[name].items()}
                loop.reporter.emit(
                    events.Evaluated, step=loop.step, dataset=name, metrics=found[name]
                )
    except StopRequested:
        set_rng_state(before)
        raise
    progress["unevaluated"] = False
    return found
