"""A training on prompts without a recipe: each prompt is a token, and a reward says which words are
good."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from pydantic import ConfigDict
from torch import Tensor
from training_setup import VOCAB, a_run, loaded, logs_of, model, use_scheduler

from tunewright import PluginOptions, hookimpl, registry
from tunewright.plugin import Reward
from tunewright.recipe import Training
from tunewright.types import Data, LoadedModel, RewardRequest, StageResult, TrainRequest
from tunewright_conformance.doubles import FakeRun


def prompts_run(folder: Path, **facts: Any) -> FakeRun:
    """A run with a template that has no stop token beside the tokenizer's own."""
    template = SimpleNamespace(info=SimpleNamespace(stop=()), chat_template=lambda: None)
    return a_run(folder, plugins={"template": template}, **facts)


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


def same(completions: list[str], **_: Any) -> list[float]:
    return [0.5 for _ in completions]


class Named(Reward):
    """A function above as a plugin: its options are handed on."""

    function: Callable[..., Any]

    class Options(PluginOptions):
        model_config = ConfigDict(frozen=True, extra="allow")

    @hookimpl
    def score(self, run: Any, request: RewardRequest) -> Any:
        options = self.options.model_extra or {}
        return self.function(request.completions, **request.columns, **options)


class Built(Reward):
    """The share of words below `limit`, which may be any for the policy's vocabulary."""

    class Options(PluginOptions):
        limit: int

    @hookimpl
    def score(self, run: Any, request: RewardRequest) -> list[float]:
        assert request.policy is not None
        limit = min(self.options.limit, request.policy.model.config.vocab_size)
        return [
            sum(int(word[1:]) < limit for word in text.split() if word[0] == "w") / 5
            for text in request.completions
        ]


FUNCTIONS = (wanted, short, in_the_row, broken, few, nothing, silent, endless, same)
REWARDS = {
    **{
        each.__name__: type(each.__name__, (Named,), {"function": staticmethod(each)})
        for each in FUNCTIONS
    },
    "Built": Built,
}


def install_rewards() -> Callable[[], None]:
    """Install them, as a distribution of that name would; what is returned undoes it."""
    find, load = registry.find, registry.load

    def entry(kind: str, name: str, place: str = "") -> registry.Entry:
        if kind == "reward" and name in REWARDS:
            point = registry.Point(kind, name, "prompts_setup:x", "tests", "0", "")
            return registry.Entry(kind, point)
        return find(kind, name, place)

    def plugin(found: registry.Entry, place: str = "") -> Any:
        return REWARDS[found.name] if found.distribution == "tests" else load(found, place)

    registry.find, registry.load = entry, plugin

    def undo() -> None:
        registry.find, registry.load = find, load

    return undo


@pytest.fixture
def own_rewards() -> Iterator[None]:
    """The functions above are installed."""
    undo = install_rewards()
    yield
    undo()


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
    made: LoadedModel,
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
    run = run or prompts_run(folder, loads=lambda **_: reference)
    settings = {
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "max_steps": 4,
        "lr_scheduler_type": "constant",
        "precision": "fp32",
    }
    request = TrainRequest(
        made,
        Data(train=data if data is not None else prompts(), evals=evals or {}),
        Training(**{**settings, **training}),
        folder,
        models={"reference": reference} if reference else {},
        checkpoint=checkpoint,
        stop_requested=lambda: stop(run),
    )
    use_scheduler(run, request.training)
    return run, stage.train_stage(run, request)


def one_by_one_and_at_once(folder: Path, stage: Any) -> list[tuple[Any, dict[str, Tensor]]]:
    """What was logged, and the weights after it, of steps in four passes of one prompt, and in one
    of four."""
    found = []
    for size in (1, 4):
        made = loaded(model())
        how = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size}
        run, _ = run_stage(folder / str(size), made, stage, reference=loaded(model()), **how)
        after = {name: each.detach() for name, each in made.model.named_parameters()}
        found.append((logs_of(run), after))
    return found
