"""Checks of the metric that evaluations are compared by, before anything is loaded."""

from collections.abc import Iterator, Sequence

from tunewright.errors import Problem, RecipeError, did_you_mean
from tunewright.plugin import Dataset, Stage
from tunewright.recipe import Training
from tunewright.resolved import Resolved, ResolvedStage
from tunewright.yamlio import Path_

_FIELD = "metric_for_best_model"


def best_metric(training: Training, sets: Sequence[str]) -> tuple[str, str]:
    """The evaluation set and the metric of it that evaluations are compared by.

    training.metric_for_best_model is METRIC, where there is one set, or SET_METRIC; `eval_` may
    stand before either, as Transformers has it. sets: names of the evaluation sets. Raises
    RecipeError where there is none, or the metric is of none.
    """
    if not sets:
        best = training.load_best_model_at_end
        field = "load_best_model_at_end" if best else "early_stopping_patience"
        raise RecipeError(
            "there is no evaluation set to judge by",
            place=f"training.{field}",
            hint="give eval_data, or take it out",
        )
    wanted = training.metric_for_best_model or f"{sets[0]}_loss"
    short = wanted.removeprefix("eval_")
    for name in (wanted, short):
        of = [each for each in sets if name.startswith(f"{each}_")]
        if of:
            longest = max(of, key=len)
            return longest, name.removeprefix(f"{longest}_")
    if len(sets) == 1:
        return sets[0], short
    names = ", ".join(f"{each}_loss" for each in sets)
    raise RecipeError(
        f"{wanted!r} is of no evaluation set",
        place=f"training.{_FIELD}",
        hint=f"it begins with the name of one: {names}",
    )


def evaluation_sets(recipe: Resolved, stage: ResolvedStage) -> list[str]:
    """Names of a stage's evaluation sets: what is held out of its data, and its eval_data."""
    dataset = recipe.choices.get("dataset")
    held_out = dataset.make().eval_sets() if dataset and issubclass(dataset.plugin, Dataset) else ()
    return [*held_out, *stage.eval_data]


def known_metrics(stage: ResolvedStage) -> Sequence[str]:
    """Metrics of a stage's evaluations; empty where its plugin does not say."""
    made = stage.choice.make()
    return made.eval_metrics if isinstance(made, Stage) else ()


def evaluation_problems(recipe: Resolved) -> Iterator[Problem]:
    """Problems of a recipe's best-model selection or early stopping."""
    for number, stage in enumerate(recipe.stages):
        try:
            _check(recipe, stage)
        except RecipeError as error:
            field = error.place.partition(".")[2]
            own: Path_ = ("stages", number) if field in stage.section.training else ()
            yield Problem((*own, "training", field), error.problem, error.hint)


def _check(recipe: Resolved, stage: ResolvedStage) -> None:
    training = stage.training
    if not (training.load_best_model_at_end or training.early_stopping_patience):
        return
    of, metric = best_metric(training, evaluation_sets(recipe, stage))
    known = known_metrics(stage)
    if known and metric not in known:
        written = training.metric_for_best_model
        hint = did_you_mean(f"{of}_{metric}", [f"{of}_{name}" for name in known])
        problem = f"no evaluation of {stage.choice.entry.name} gives {written!r}"
        raise RecipeError(problem, place=f"training.{_FIELD}", hint=hint)
