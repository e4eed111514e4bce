"""A stop that comes in an evaluation, in rollouts, or before the first step: the run that goes on
ends with the bits of one that was never stopped."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import every_stage
import pytest
from every_stage import STEPS
from prompts_setup import own_rewards
from test_killed import files
from test_resume import assert_same_state, no_pickle
from training_setup import logs_of

from tunewright.errors import Stopped
from tunewright_hf.checkpoints.folder import checkpoints, latest_checkpoint
from tunewright_hf.checkpoints.state_codec import load_state

__all__ = ["no_pickle", "own_rewards"]  # fixtures
pytestmark = pytest.mark.usefixtures("own_rewards")

#: evaluations after steps 2, 4, … of 3 batches each
SETTINGS: dict[str, Any] = {
    "eval_steps": 2,
    "per_device_eval_batch_size": 1,
    "load_best_model_at_end": True,
    "early_stopping_patience": 9,
}


def stop_between(step: int, number: int) -> Callable[[Any], bool]:
    """A stop that is asked for when, after this step, it is looked for the so-manieth time between
    two batches; and from then on."""
    found = 0

    def stop(run: Any) -> bool:
        nonlocal found
        logged = logs_of(run)[-1]["step"] if logs_of(run) else 0
        caller, beyond = sys._getframe(2), sys._getframe(3)  # PPO asks through a function more
        found += logged == step and "check_stop" in (caller.f_code.co_name, beyond.f_code.co_name)
        return found >= number

    return stop


def train(name: str, folder: Path, **more: Any) -> Any:
    return every_stage.train(name, "lora", folder, **SETTINGS | more)


def resumed_equals_uninterrupted(name: str, folder: Path, number: int, unevaluated: bool) -> None:
    whole, wanted = train(name, folder / "whole")
    with pytest.raises(Stopped, match=f"stopped and saved at step 4 of {STEPS}"):
        train(name, folder / "parts", stop=stop_between(4, number))
    checkpoint = latest_checkpoint(folder / "parts" / "checkpoints")
    assert checkpoint is not None and checkpoint.name == "step-4"
    progress = load_state(checkpoint, "others")["progress"]
    assert progress["unevaluated"] is unevaluated
    second, result = train(name, folder / "parts", checkpoint=checkpoint)
    assert (result.steps, result.metrics) == (wanted.steps, wanted.metrics)
    assert logs_of(second) == logs_of(whole)[4:]
    evaluated = [event.step for event in second.events if type(event).__name__ == "Evaluated"]
    assert evaluated == ([4, 6, 8] if unevaluated else [6, 8])
    kept = [checkpoints(folder / each / "checkpoints") for each in ("whole", "parts")]
    assert [path.name for path in kept[0]] == [path.name for path in kept[1]]
    for pair in zip(*kept, strict=True):
        assert_same_state(*pair)
    assert files(folder / "whole" / "model") == files(folder / "parts" / "model")


USUAL = ("sft", "kto", "grpo", "ppo")
STAGES = [
    pytest.param(name, marks=[] if name in USUAL else pytest.mark.long) for name in every_stage.MAKE
]


@pytest.mark.parametrize("name", STAGES)
def test_stopped_in_an_evaluation(tmp_path: Path, name: str) -> None:
    second = 1 if name == "pretrain" else 2  # which packs the rows into one batch
    resumed_equals_uninterrupted(name, tmp_path, second, unevaluated=True)


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_stopped_between_two_generations(tmp_path: Path, name: str) -> None:
    resumed_equals_uninterrupted(name, tmp_path, 3 + 2, unevaluated=False)


@pytest.mark.parametrize("name", ["grpo", "dpo"])  # in rollouts, and while the reference is asked
def test_stopped_before_the_first_step(tmp_path: Path, name: str) -> None:
    with pytest.raises(Stopped, match="stopped before step 1"):
        train(name, tmp_path, stop=stop_between(0, 2))
    assert not checkpoints(tmp_path / "checkpoints")


def test_stopped_in_the_evaluation_that_was_stopped_before(tmp_path: Path) -> None:
    _, wanted = train("sft", tmp_path / "whole")
    with pytest.raises(Stopped):
        train("sft", tmp_path / "parts", stop=stop_between(4, 2))
    first = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    calls: list[Any] = []
    with pytest.raises(Stopped, match="saved at step 4"):
        train(
            "sft",
            tmp_path / "parts",
            checkpoint=first,
            stop=lambda run: bool(calls.append(run)) or len(calls) > 2,
        )
    assert load_state(first, "others")["progress"]["unevaluated"] is True
    assert train("sft", tmp_path / "parts", checkpoint=first)[1].metrics == wanted.metrics
