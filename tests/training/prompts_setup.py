"""A training on prompts without a recipe: each prompt is a token, and a reward says which words are
good."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from answers_setup import Run
from training_setup import VOCAB

from tunewright.check import Source
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, StageResult, TrainRequest
from tunewright_hf.training import rewards


class PromptsRun(Run):
    """With a template that has no stop token beside the tokenizer's own, and a recipe from no
    command line."""

    source = Source("recipe.yaml")

    def plugin(self, kind: str) -> Any:
        if kind == "optimizer":
            return super().plugin(kind)
        return SimpleNamespace(info=SimpleNamespace(stop=()), chat_template=lambda: None)


def wanted(completions: list[str], **_: Any) -> list[float]:
    """The share of an answer's words with a number below 64: half of them at first."""
    return [
        sum(int(word[1:]) < 64 for word in text.split() if word[0] == "w") / 5
        for text in completions
    ]


def short(completions: list[str], *, longest: int, **_: Any) -> list[float]:
    return [-len(text.split()) / longest for text in completions]


def in_the_row(completions: list[str], *, good: list[str], **_: Any) -> list[float | None]:
    """The row says which digit is good, or nothing."""
    return [digit and float(digit in text) for text, digit in zip(completions, good, strict=True)]


def broken(completions: list[str], **_: Any) -> list[float]:
    raise KeyError("key")


def few(completions: list[str], **_: Any) -> list[float]:
    return [1.0]


def nothing(completions: list[str], **_: Any) -> None:
    return None


def silent(completions: list[str], **_: Any) -> list[None]:
    return [None for _ in completions]


def endless(completions: list[str], **_: Any) -> list[float]:
    return [float("inf") for _ in completions]


class Built:
    """Rewards that are made ready: the share of words below `limit`, which may be any for the
    policy's vocabulary."""

    def __init__(self, *, run: Any, policy: LoadedModel, limit: int) -> None:
        self.run, self.limit = run, min(limit, policy.model.config.vocab_size)

    def __call__(self, completions: list[str], **_: Any) -> list[float]:
        return [
            sum(int(word[1:]) < self.limit for word in text.split() if word[0] == "w") / 5
            for text in completions
        ]


REWARDS = (wanted, short, in_the_row, broken, few, nothing, silent, endless, Built)


class _Point:
    """An entry point, as far as it is asked."""

    dist = SimpleNamespace(name="tests")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name, self.load = function.__name__, lambda: function


def install_rewards() -> None:
    rewards.metadata = SimpleNamespace(
        entry_points=lambda group: [_Point(function) for function in REWARDS]
    )


@pytest.fixture
def own_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions above are installed."""
    monkeypatch.setattr(rewards, "metadata", rewards.metadata)
    install_rewards()


def prompts(number: int = 8, longest: int = 4) -> datasets.Dataset:
    table = []
    for row in range(number):
        ids = [3 + (7 * row + place) % (VOCAB - 3) for place in range(1 + row % longest)]
        table.append(
            {
                "prompt_ids": ids,
                "good": "1" if row % 2 else None,
                "row": "a name that nothing may rely on",
            }
        )
    return datasets.Dataset.from_list(table)


def run_stage(
    folder: Path,
    loaded: LoadedModel,
    stage: Any,
    data: datasets.Dataset | None = None,
    *,
    evals: dict[str, datasets.Dataset] | None = None,
    reference: LoadedModel | None = None,
    stop: Callable[[PromptsRun], bool] = lambda run: False,
    checkpoint: Path | None = None,
    run: PromptsRun | None = None,
    **training: Any,
) -> tuple[PromptsRun, StageResult]:
    """`stage.train_stage` with settings that are quick; `training` are fields of
    recipe.Training."""
    run = run or PromptsRun(folder, lambda **_: reference)
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "max_steps": 4,
        "lr_scheduler_type": "constant",
        "precision": "fp32",
    }
    request = TrainRequest(
        loaded,
        Data(train=data if data is not None else prompts(), evals=evals or {}),
        Training(**{**settings, **training}),
        folder,
        models={"reference": reference} if reference else {},
        checkpoint=checkpoint,
        stop_requested=lambda: stop(run),
    )
    return run, stage.train_stage(run, request)
