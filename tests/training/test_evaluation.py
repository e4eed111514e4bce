"""The best evaluation and its checkpoint, and early stopping."""

import math

import answers_setup
import prompts_setup
import pytest
import torch
from evaluation_setup import curve, evaluated, notices, same, steps, train, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prompts_setup import own_rewards
from safetensors.torch import load_file
from test_pairs_training import CASES, adapted
from test_resume import MODELS, assert_same_state, no_pickle
from training_setup import loaded, logs_of, model, stop_after

from tunewright import RunError
from tunewright.errors import Stopped
from tunewright.recipe import Training
from tunewright_hf.checkpoints.folder import (
    checkpoints,
    latest_checkpoint,
    rotate,
    write_checkpoint,
)
from tunewright_hf.checkpoints.state_codec import load_state
from tunewright_hf.training.early_stopping import EarlyStopping
from tunewright_ppo import Ppo

__all__ = ["curve", "no_pickle", "own_rewards"]


# ---- the best ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_the_result_is_the_best_evaluation(tmp_path, curve, kind):
    run, result = train(tmp_path / "best", MODELS[kind](), load_best_model_at_end=True)
    assert (result.steps, result.metrics["best_step"], result.metrics["it_loss"]) == (12, 6, 1.0)
    assert notices(run) == ["the result has the weights of step 6, of 12: it_loss 1"]
    last, _ = train(tmp_path / "last", MODELS[kind](), save_steps=6)
    assert logs_of(run) == logs_of(last)  # to keep the best one changes nothing in training
    assert [event.step for event in run.events if type(event).__name__ == "Saved"] == [2, 4, 6]
    sixth = load_state(tmp_path / "last" / "checkpoints" / "step-6", "weights")
    assert same(
        trained(tmp_path / "best"),
        {name.replace(".default", ""): each for name, each in sixth.items()},
    )
    assert not same(trained(tmp_path / "best"), trained(tmp_path / "last"))


def test_the_last_may_be_the_best(tmp_path):
    run, result = train(tmp_path, load_best_model_at_end=True)
    assert result.metrics["best_step"] == 12
    assert notices(run)[-1].startswith("the result has the weights of step 12, of 12: it_loss ")


def test_a_metric_that_rises(tmp_path, curve):
    settings = {"metric_for_best_model": "it_accuracy", "load_best_model_at_end": True}
    assert train(tmp_path / "up", **settings)[1].metrics["best_step"] == 12
    down = train(tmp_path / "down", **settings, greater_is_better=False)[1]
    assert (down.metrics["best_step"], down.metrics["it_accuracy"]) == (2, 0.2)
    alone = train(tmp_path / "alone", **settings | {"metric_for_best_model": "accuracy"})[1]
    assert alone.metrics["best_step"] == 12


def test_what_is_never_a_number_is_never_the_best(tmp_path, curve):
    curve[:] = [math.nan] * 6
    run, result = train(tmp_path, load_best_model_at_end=True, early_stopping_patience=3)
    assert (result.steps, steps(tmp_path)) == (6, [])
    assert notices(run)[-1] == "it_loss was never a number: the result has the weights of step 6"
    assert "best_step" not in result.metrics


def test_the_best_one_is_never_rotated_away(tmp_path, curve):
    train(tmp_path / "two", load_best_model_at_end=True, save_steps=1, save_total_limit=2)
    assert steps(tmp_path / "two") == [6, 12]
    train(tmp_path / "one", load_best_model_at_end=True, save_steps=1, save_total_limit=1)
    assert steps(tmp_path / "one") == [6, 12]
    train(tmp_path / "not-asked", early_stopping_patience=9, save_steps=1, save_total_limit=2)
    assert steps(tmp_path / "not-asked") == [11, 12]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sets(st.integers(1, 30), max_size=12), st.integers(1, 6), st.none() | st.integers(1, 30))
def test_rotation(tmp_path_factory, made, keep, best):
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in made:
        write_checkpoint(
            folder / f"step-{step}",
            lambda path: path.joinpath("weights.json").write_text("{}"),
            facts={"step": step},
        )
    rotate(folder, keep, best)
    left = [int(path.name[5:]) for path in checkpoints(folder)]
    assert len(left) == min(len(made), max(keep, len({best, max(made, default=0)} & made)))
    assert {best, max(made, default=best)} & made <= set(left)
    others = sorted(made - {best})
    # the newest
    assert sorted(set(left) - {best}) == others[len(others) - len(set(left) - {best}) :]


# ---- other stages --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_best_of_pairs_and_labels(tmp_path, case):
    how = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "rewards/margins",
        "eval_steps": 1,
    }
    made = adapted(case, "full")
    run, result = answers_setup.run_stage(
        tmp_path, made, case.stage, evals={"it": case.rows(6, seed=1)}, **how
    )
    margins = {step: metrics["rewards/margins"] for step, metrics in evaluated(run).items()}
    best = max(margins, key=margins.__getitem__)
    assert (result.metrics["best_step"], result.metrics["it_rewards/margins"]) == (
        best,
        margins[best],
    )
    assert same(trained(tmp_path), load_state(tmp_path / "checkpoints" / f"step-{best}", "weights"))


@pytest.mark.parametrize(("eval_steps", "due"), [(3, [3, 6, 8]), (None, [3, 7, 8])])
def test_the_best_of_ppo_is_written_in_a_rollout_too(tmp_path, own_rewards, eval_steps, due):
    """A rollout has two steps, an epoch two rollouts; its last one begins with step 3."""
    stage = Ppo(Ppo.Options(rewards=["wanted"], max_new_tokens=3, ppo_epochs=2, beta=0.0), "ppo")
    how = {"evals": {"it": prompts_setup.prompts(3)}, "eval_steps": eval_steps, "max_steps": 8}
    how |= {
        "load_best_model_at_end": True,
        "metric_for_best_model": "reward",
        "save_total_limit": 9,
    }
    run, result = prompts_setup.run_stage(tmp_path / "kept", loaded(model()), stage, **how)
    assert list(evaluated(run)) == due
    best = int(result.metrics["best_step"])
    assert best in steps(tmp_path / "kept") and set(steps(tmp_path / "kept")) <= set(due)
    weights = load_state(tmp_path / "kept" / "checkpoints" / f"step-{best}", "weights")
    heads = {name: weights.pop(name) for name in list(weights) if name.startswith("value_head.")}
    assert same(trained(tmp_path / "kept"), weights)
    head = load_file(tmp_path / "kept" / "value_head.safetensors")
    assert (
        all(
            torch.equal(head[name.removeprefix("value_head.")], each)
            for name, each in heads.items()
        )
        and heads
    )


# ---- early stopping ------------------------------------------------------------------------------


def test_stops_after_evaluations_without_improvement(tmp_path, curve):
    run, result = train(tmp_path, early_stopping_patience=2)
    assert result.steps == 10
    assert notices(run) == [
        "stopped at step 10: it_loss has not improved in 2 evaluations (best: 1 at step 6)"
    ]
    assert "best_step" not in result.metrics
    assert result.metrics["it_loss"] == 1.2  # of the weights that it has
    assert logs_of(run)[-1]["step"] == 10


def test_no_more_than_the_threshold_is_no_improvement(tmp_path, curve):
    curve[:] = [3.0, 2.5, 2.4, 2.3, 0.1, 0.1]
    run, result = train(
        tmp_path,
        early_stopping_patience=2,
        early_stopping_threshold=0.5,
        load_best_model_at_end=True,
    )
    assert result.steps == 6  # 0.5 is not more than 0.5
    assert (
        "has not improved by more than 0.5 in 2 evaluations (best: 2.4 at step 6)"
        in notices(run)[0]
    )
    assert result.metrics["best_step"] == 6


# ---- resumed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [5, 6, 8, 9, 10])
@pytest.mark.parametrize("kind", MODELS)
def test_resumed_equals_uninterrupted(tmp_path, curve, kind, at):
    """Wherever it was stopped: before the best evaluation, at it, while it is waited for a better
    one, and at the last. An evaluation that was stopped is done when the run goes on."""
    settings = {"load_best_model_at_end": True, "early_stopping_patience": 2, "logging_steps": 1}
    whole, result = train(tmp_path / "whole", MODELS[kind](), **settings)
    with pytest.raises(Stopped, match=f"at step {at} of 12"):
        train(tmp_path / "parts", MODELS[kind](), stop=stop_after(at), **settings)
    checkpoint = latest_checkpoint(tmp_path / "parts" / "checkpoints")
    second, again = train(tmp_path / "parts", MODELS[kind](), checkpoint=checkpoint, **settings)
    assert (again.steps, again.metrics) == (result.steps, result.metrics) and again.metrics[
        "best_step"
    ] == 6
    assert notices(second) == notices(whole)
    assert same(trained(tmp_path / "parts"), trained(tmp_path / "whole"))
    assert_same_state(*(tmp_path / name / "checkpoints" / "step-6" for name in ("whole", "parts")))


def test_a_run_that_dies_after_an_early_stop_comes_there_again(tmp_path, curve):
    """It has stopped at step 10, and its result was not written: every checkpoint has a way on to
    step 10."""
    settings = {"early_stopping_patience": 2, "save_steps": 2, "load_best_model_at_end": True}
    _, result = train(tmp_path, **settings)
    assert steps(tmp_path) == [4, 6, 8]
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert load_state(checkpoint, "others")["best"]["waited"] == 1
    assert train(tmp_path, checkpoint=checkpoint, **settings)[1] == result


def test_a_best_checkpoint_that_is_gone_stops_the_resumption(tmp_path, curve):
    train(tmp_path, load_best_model_at_end=True, save_steps=2)
    (tmp_path / "checkpoints" / "step-6" / "manifest.json").unlink()
    last = latest_checkpoint(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="step-6: the best checkpoint so far is gone"):
        train(tmp_path, load_best_model_at_end=True, save_steps=2, checkpoint=last)


@settings(deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=12), st.booleans(), st.integers(1, 4))
def test_judging_in_two_parts_is_judging_at_once(values, rises, patience):
    """The best evaluation, and the evaluations since, survive storing the state."""
    training = Training(early_stopping_patience=patience, greater_is_better=rises)
    whole, part = EarlyStopping(training, ["it"]), EarlyStopping(training, ["it"])
    for step, value in enumerate(values):
        whole.judge(step, {"it": {"loss": value}})
        state, part = dict(part.state), EarlyStopping(training, ["it"])
        part.state = state
        part.judge(step, {"it": {"loss": value}})
        assert part.state == whole.state
    best = max(values) if rises else min(values)
    assert whole.state["value"] == best and whole.state["step"] == values.index(best)
    assert whole.state["waited"] == len(values) - 1 - values.index(best)
