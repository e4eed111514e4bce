"""A run is resumed with a recipe that has changed."""

import json

import pytest

from kernel.state_setup import state_of, train
from tunewright.errors import RecipeError, Stopped

__all__ = ["train"]

HARMLESS = [
    "training.logging_steps=3",
    "training.save_steps=7",
    "training.save_total_limit=1",
    "training.eval_steps=9",
    "training.per_device_eval_batch_size=2",
    "loggers=[mine, raises]",
    "engine.name=mine",
    "launch.main_port=1234",
    "data.0.path=./a.jsonl",
    "dataset.workers=5",
    "stage.pace=9",
]


@pytest.mark.parametrize("change", HARMLESS)
def test_a_harmless_change_may_be_made(train, change):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    with pytest.raises(Stopped):  # it goes on, and is stopped again by itself
        train("stage.stop_at=1", change, resume=True)
    assert state_of(train.out)["resumed"] is True


HARMFUL = {
    "training.learning_rate=1": "training.learning_rate was 5e-05 when the run began, is 1.0 now",
    "training.max_steps=9": "training.max_steps was None when the run began, is 9 now",
    "adapter={name: mine}": None,
    "dataset.size=2": "dataset.size was 1 when the run began, is 2 now",
    "stage.steps=5": "stages.0.steps was 3 when the run began, is 5 now",
    "data.0.name=b": "data.0.name was",
    "accelerators=[]": None,
    "scheduler=flat": "scheduler.name was 'cosine' when the run began, is 'flat' now",
    "training.seed=7": "training.seed was 42 when the run began, is 7 now",
    "data=[{path: a.jsonl}, {path: b.jsonl}]": "data.1.path was None when the run began",
}


@pytest.mark.parametrize("change", HARMFUL)
def test_the_one_field_that_may_not_change_is_named(train, change):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    said = HARMFUL[change]
    with pytest.raises(RecipeError if said else Stopped) as error:
        train("stage.stop_at=1", change, resume=True)
    if said:
        assert said in str(error.value)
        assert len(str(error.value)) < 400
        assert "--overwrite" in error.value.hint


@pytest.mark.parametrize(
    ("schedule", "old", "new", "allowed"),
    [
        ("flat", "max_steps=5", "max_steps=9", True),
        ("flat", "epochs=1", "epochs=2.5", True),
        ("flat", "max_steps=5", "max_steps=3", False),
        ("bent", "max_steps=5", "max_steps=9", False),
    ],
)
def test_more_steps_where_the_schedule_does_not_depend_on_them(train, schedule, old, new, allowed):
    given = (f"scheduler={schedule}", "stage.stop_at=1")
    with pytest.raises(Stopped):
        train(*given, f"training.{old}")
    with pytest.raises(Stopped if allowed else RecipeError):
        train(*given, f"training.{new}", resume=True)
    if allowed:  # what it goes on with is written down, and holds from then on
        name, _, value = new.partition("=")
        assert state_of(train.out)["recipe"]["training"][name] == float(value)
        assert (
            f"{name}: {float(value) if name == 'epochs' else value}"
            in (train.out / "recipe.yaml").read_text()
        )
        with pytest.raises(RecipeError, match=f"training.{name} was"):
            train(*given, f"training.{old}", resume=True)


def test_a_stage_that_is_finished_does_not_get_more_steps(train):
    stages = "stages: [{name: talks, training: {max_steps: 2}}, {name: talks, stop_at: 1}]"
    with pytest.raises(Stopped):
        train("scheduler=flat", stages=stages)
    with pytest.raises(RecipeError, match=r"stages.0.training.max_steps was 2 .* is 4 now"):
        train("scheduler=flat", "stages.0.training.max_steps=4", stages=stages, resume=True)


def test_options_that_a_later_version_has_are_at_their_defaults(train):
    with pytest.raises(Stopped):
        train("stage.stop_at=1")
    state = state_of(train.out)
    del state["recipe"]["dataset"]["size"], state["recipe"]["training"]["max_grad_norm"]
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(Stopped):
        train("stage.stop_at=1", resume=True)
    (train.out / "run.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match=r"training.max_grad_norm was 1.0 when the run began"):
        train("stage.stop_at=1", "training.max_grad_norm=2", resume=True)
