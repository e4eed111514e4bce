"""The metric by which an evaluation is the best: how it is written, and what is refused."""

import every_stage
import pytest
from evaluation_setup import curve, train
from prompts_setup import own_rewards
from test_resume import no_pickle

from tunewright import RecipeError
from tunewright.evaluation import best_metric
from tunewright.recipe import Training

__all__ = ["curve", "no_pickle", "own_rewards"]


def test_a_metric_that_no_evaluation_gives(tmp_path):
    with pytest.raises(
        RecipeError,
        match=r"metric_for_best_model: no evaluation gives 'accuracy' \(there is: it_loss",
    ):
        train(tmp_path, load_best_model_at_end=True, metric_for_best_model="accuracy", eval_steps=1)


@pytest.mark.parametrize(
    ("sets", "written", "meant"),
    [
        (["it"], None, ("it", "loss")),
        (["it"], "loss", ("it", "loss")),
        (["it"], "it_loss", ("it", "loss")),
        (["it"], "eval_loss", ("it", "loss")),
        (["it"], "eval_it_loss", ("it", "loss")),
        (["it"], "eval_rewards/margins", ("it", "rewards/margins")),
        (["held out"], "held out_rouge-l", ("held out", "rouge-l")),
        (["eval"], "eval_loss", ("eval", "loss")),
        (["a", "eval"], "eval_loss", ("eval", "loss")),
        (["a", "a_b"], "a_b_loss", ("a_b", "loss")),
        (["a", "b"], "eval_b_loss", ("b", "loss")),
        (["a", "b"], None, ("a", "loss")),
    ],
)
def test_the_metric_is_written_as_here_or_as_in_transformers(sets, written, meant):
    training = Training(load_best_model_at_end=True, metric_for_best_model=written)
    assert best_metric(training, sets) == meant


def test_eval_loss_is_the_loss_of_the_only_set(tmp_path, curve):
    settings = {"load_best_model_at_end": True, "eval_steps": 2}
    _, ours = train(tmp_path / "ours", metric_for_best_model="it_loss", **settings)
    _, theirs = train(tmp_path / "theirs", metric_for_best_model="eval_loss", **settings)
    assert theirs.metrics == ours.metrics and "best_step" in theirs.metrics


def test_a_metric_of_no_evaluation_set(tmp_path):
    with pytest.raises(RecipeError, match=r"'c_loss' is of no evaluation set .*: a_loss, b_loss"):
        train(tmp_path, evals=("a", "b"), early_stopping_patience=1, metric_for_best_model="c_loss")
    with pytest.raises(RecipeError, match="'loss' is of no evaluation set"):
        train(tmp_path, evals=("a", "b"), early_stopping_patience=1, metric_for_best_model="loss")
    _, result = train(
        tmp_path, evals=("a", "b"), load_best_model_at_end=True, metric_for_best_model="b_loss"
    )
    assert {"a_loss", "b_loss", "best_step"} <= result.metrics.keys()


@pytest.mark.parametrize(
    "asks", [{"load_best_model_at_end": True}, {"early_stopping_patience": 1}], ids=str
)
def test_nothing_to_judge_by(tmp_path, asks):
    with pytest.raises(
        RecipeError, match=rf"training.{next(iter(asks))}: there is no evaluation set to judge by"
    ):
        train(tmp_path, evals=(), **asks)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"early_stopping_threshold": 0.1}, "goes with early_stopping_patience"),
        ({"metric_for_best_model": "it_loss"}, "load_best_model_at_end or early_stopping_patience"),
        ({"greater_is_better": False}, "load_best_model_at_end or early_stopping_patience"),
    ],
    ids=str,
)
def test_fields_that_would_do_nothing(fields, message):
    with pytest.raises(ValueError, match=message):
        Training(**fields)


@pytest.mark.slow
@pytest.mark.parametrize("name", every_stage.MAKE)
def test_stages_declare_the_metrics_of_their_evaluations(tmp_path, own_rewards, name):
    """`recipe check` refuses others."""
    run, _ = every_stage.train(name, "full", tmp_path, max_steps=1, eval_steps=1, save_steps=None)
    evaluated = [event for event in run.events if type(event).__name__ == "Evaluated"]
    assert evaluated
    declared = set(every_stage.MAKE[name]().stage.eval_metrics)
    assert {metric for event in evaluated for metric in event.metrics} == declared
