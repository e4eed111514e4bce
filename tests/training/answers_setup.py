"""A training on pairs or labels without a recipe: rows of random tokens in which something can be
learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from training_setup import VOCAB, a_run, use_scheduler
from training_setup import rows as sequences

from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, StageResult, TrainRequest
from tunewright_conformance.doubles import FakeRun


def preference(
    number: int = 16, longest: int = 8, seed: int = 0, margins: bool = False
) -> datasets.Dataset:
    """The chosen answer counts up by 3, the rejected one stays where it is."""
    made = torch.Generator().manual_seed(seed)

    def below(limit: int) -> int:
        return int(torch.randint(1, limit, (1,), generator=made))

    table = []
    for row in range(number):
        prompt, start = _counting(below(VOCAB), below(longest)), below(VOCAB)
        chosen, rejected = (
            _counting(start, below(longest)),
            _counting(start, below(longest), step=0),
        )
        margin = 0.1 * (row % 3) if margins else None
        table.append(
            {
                "prompt_ids": prompt,
                "chosen_ids": [*chosen, 2],
                "rejected_ids": [*rejected, 2],
                "margin": margin,
            }
        )
    return datasets.Dataset.from_list(table)


def unpaired(number: int = 16, seed: int = 0) -> datasets.Dataset:
    """The answers of `preference`, good and bad in turns."""
    table = []
    for place, row in enumerate(preference(number, seed=seed)):
        good = place % 2 == 0
        completion = row["chosen_ids"] if good else row["rejected_ids"]
        table.append({"prompt_ids": row["prompt_ids"], "completion_ids": completion, "label": good})
    return datasets.Dataset.from_list(table)


def _counting(start: int, length: int, step: int = 3) -> list[int]:
    return [3 + (start + step * place) % (VOCAB - 3) for place in range(length)]


def run_stage(
    folder: Path,
    loaded: LoadedModel,
    stage: Any,
    data: datasets.Dataset | None = None,
    *,
    evals: dict[str, datasets.Dataset] | None = None,
    reference: LoadedModel | None = None,
    stop: Callable[[FakeRun], bool] = lambda run: False,
    checkpoint: Path | None = None,
    run: FakeRun | None = None,
    **training: Any,
) -> tuple[FakeRun, StageResult]:
    """`stage.train_stage` with settings that are quick; `training` are fields of
    recipe.Training."""
    run = run or a_run(folder)
    sorts = {
        "preference": preference,
        "unpaired": unpaired,
        "messages": sequences,
        "text": sequences,
    }
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "max_steps": 6,
        "lr_scheduler_type": "constant",
        "precision": "fp32",
    }
    request = TrainRequest(
        loaded,
        Data(train=data if data is not None else sorts[stage.rows](), evals=evals or {}),
        Training(**{**settings, **training}),
        folder,
        models={"reference": reference} if reference else {},
        checkpoint=checkpoint,
        stop_requested=lambda: stop(run),
    )
    use_scheduler(run, request.training)
    return run, stage.train_stage(run, request)
