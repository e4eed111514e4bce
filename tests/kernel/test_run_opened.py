"""A trained run is opened again: its model, by its head, with the template it was trained with."""

import json
import sys
from pathlib import Path

import pytest

import kernel_fakes as fakes
from kernel.run_setup import calls, train
from tunewright import run
from tunewright.errors import RecipeError, RunError, Stopped

__all__ = ["train"]


def test_options_that_suit_the_checkpoint_are_used_and_stored(train):
    train()
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "mine", "system": "listed", "a": "b"}
    assert "template" not in state["recipe"]


@pytest.mark.parametrize("named", ["template: mine", "template: {name: mine, system: mine}"])
def test_a_recipe_that_names_that_template_gets_them_too(train, named):
    train("template.system=mine", recipe=f"{fakes.RECIPE}{named}\n")
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "mine", "system": "mine", "a": "b"}


def test_another_template_gets_none_of_them(train):
    train(recipe=fakes.RECIPE + "template: other\n")
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"] == {"name": "other"}


def test_what_was_trained_with_is_used_whatever_is_listed_later(train, monkeypatch):
    train()
    monkeypatch.setattr(sys.modules["tw_mine"], "LISTED", "of a later version")
    opened = run.open_run(train.out)
    opened.load_policy()
    assert opened.plugin("template").options.system == "listed"
    train(overwrite=True)
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"]["system"] == "of a later version"


def test_a_resumed_run_keeps_its_template(train, monkeypatch):
    with pytest.raises(Stopped):
        train("stage.fail=stop")
    monkeypatch.setattr(sys.modules["tw_mine"], "LISTED", "of a later version")
    with pytest.raises(Stopped):
        train("stage.fail=stop", resume=True)
    state = json.loads((train.out / "run.json").read_text())
    assert state["template"]["system"] == "listed"


@pytest.mark.parametrize("written", [3, {}, {"name": ""}, [], {"system": "a"}])
def test_a_damaged_template_in_run_json_is_one_line(train, written):
    train()
    file = train.out / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"template": written}))
    with pytest.raises(RunError, match=r"run.json: describes no template"):
        run.open_run(train.out)


def test_open_run_gives_the_trained_model(train):
    train()
    opened = run.open_run(train.out)
    opened.load_policy()
    assert calls()[-1] == ("load_model", str(train.out / "model"), "causal_lm")
    with pytest.raises(RecipeError, match="is no run folder"):
        run.open_run(Path("/nowhere"))


def test_a_model_that_gives_numbers_is_none_to_talk_to(train):
    train("stage=score")
    with pytest.raises(RecipeError, match="does not generate text"):
        run.open_run(train.out).load_policy()


def test_a_reward_model_is_loaded_by_its_head(train):
    train("stage=score")
    opened = run.open_run(train.out)
    assert opened.policy_head == "score"
    opened.load_policy("score")
    assert calls()[-1] == ("load_model", str(train.out / "model"), "score")


def test_a_model_without_scores_has_none_to_give(train):
    train()
    with pytest.raises(RecipeError, match="is no reward model"):
        run.open_run(train.out).load_policy("score")
