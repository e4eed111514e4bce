"""Checks that several stages share: splits of a step, and resuming."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from answers_setup import run_stage
from training_setup import logs_of, stop_after

from tunewright.errors import Stopped
from tunewright.types import LoadedModel


def check_split(
    folder: Path,
    make: Callable[[], LoadedModel],
    stage: Any,
    data: datasets.Dataset,
    held_out: datasets.Dataset,
) -> None:
    """A step of 8 rows trains and evaluates the same at once and row by row."""
    found = []
    for size, passes in ((8, 1), (1, 8)):
        run, result = run_stage(
            folder / str(size),
            make(),
            stage,
            data,
            evals={"it": held_out},
            per_device_train_batch_size=size,
            gradient_accumulation_steps=passes,
            per_device_eval_batch_size=size,
            batching="random",
            max_steps=3,
        )
        found.append((logs_of(run), result.metrics))
    (at_once, metrics), (by_row, others) = found
    for one, other in zip(at_once, by_row, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert others == pytest.approx(metrics, rel=1e-4, abs=1e-6)


def check_resumed(
    folder: Path, make: Callable[[], LoadedModel], stage: Any, data: datasets.Dataset
) -> None:
    """A run that is stopped after step 3 of 6 goes on with the same metrics, bit for bit."""

    def train(name: str, **how: Any) -> list[dict[str, float]]:
        settings: dict[str, Any] = {"max_steps": 6, "logging_steps": 1}
        run, _ = run_stage(folder / name, make(), stage, data, **settings, **how)
        return logs_of(run)

    whole = train("whole")
    with pytest.raises(Stopped):
        train("part", stop=stop_after(3))
    checkpoint = max((folder / "part/checkpoints").glob("step-*"))
    assert train("part", checkpoint=checkpoint) == whole[3:]
