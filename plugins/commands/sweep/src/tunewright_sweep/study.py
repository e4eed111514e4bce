"""The Optuna study in the sweep's folder: which values are tried, and what came of them."""

import itertools
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from tunewright import RecipeError, RunError
from tunewright_sweep import space as spaces
from tunewright_sweep.results import FILES

if TYPE_CHECKING:
    from tunewright_sweep.search import Asked

__all__ = ["TRIALS", "check_folder", "distributions", "folder_name", "open_study", "remove", "size"]

STUDY, TRIALS = "study.db", "trials"
_DEFAULT = 20  # trials


def check_folder(folder: Path) -> None:
    """Raises RecipeError if the folder holds something else, which a sweep must not touch."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RecipeError("is a file, expected a folder", place=str(folder), hint="--output FOLDER")
    if not (folder / STUDY).is_file() and any(each.name != ".lock" for each in folder.iterdir()):
        raise RecipeError(
            "holds something else than a sweep", place=str(folder), hint="name another folder"
        )


def remove(folder: Path) -> None:
    """Remove what a sweep has written, and nothing else."""
    if (folder / TRIALS).is_dir() and not (folder / TRIALS).is_symlink():
        shutil.rmtree(folder / TRIALS)
    for name in (STUDY, *FILES):
        (folder / name).unlink(missing_ok=True)


def folder_name(number: int) -> str:
    """Name of a trial's folder."""
    return f"trial-{number:04}"


def size(asked: "Asked", space: Mapping[str, spaces.Values]) -> int:
    """Number of trials that the sweep is to have."""
    if asked.sampler != "grid":
        return asked.trials or _DEFAULT
    every = math.prod(map(len, spaces.combinations(space).values()))
    return min(asked.trials or every, every)


def distributions(
    asked: "Asked", space: Mapping[str, spaces.Values]
) -> dict[str, BaseDistribution]:
    """The values of each field, as Optuna has them. Raises RecipeError if they make no grid."""
    values = spaces.combinations(space) if asked.sampler == "grid" else space
    return {name: _distribution(each) for name, each in values.items()}


def open_study(
    asked: "Asked", space: Mapping[str, spaces.Values], settings: dict[str, Any]
) -> optuna.Study:
    """The study in the folder, or a new one.

    settings: JSON values that have to be those of the study that is continued; `rises`: whether it
    maximizes. Raises RecipeError if they differ, RunError if the study cannot be read.
    """
    file = asked.output / STUDY
    settings = settings | {"fields": {name: repr(values) for name, values in space.items()}}
    try:
        study = optuna.create_study(
            study_name="sweep",
            storage=f"sqlite:///{file.resolve()}",
            load_if_exists=True,
            direction="maximize" if settings["rises"] else "minimize",
            pruner=optuna.pruners.MedianPruner() if asked.prune else optuna.pruners.NopPruner(),
        )
        before = study.user_attrs.get("settings")
    except Exception as error:  # of Optuna, SQLAlchemy or SQLite
        said = " ".join(str(error).split())[:200]
        hint = "name another folder, or move the file away"
        raise RunError(f"cannot be read: {said}", place=str(file), hint=hint) from error
    if before is None:
        study.set_user_attr("settings", settings)
        for values in _grid(asked, space):
            study.enqueue_trial(values)
    else:
        _compare(before, settings, asked.output)
    # a sweep that goes on draws other values than those it has drawn
    seed = (asked.seed + 1_000_003 * len(study.trials)) % 2**32
    if asked.sampler == "tpe":
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=asked.jobs > 1)
    else:
        study.sampler = optuna.samplers.RandomSampler(seed=seed)
    _take_up(study)
    return study


def _compare(before: Mapping[str, Any], settings: Mapping[str, Any], folder: Path) -> None:
    for name, now in settings.items():
        if before.get(name) != now:
            problem = f"holds a sweep whose {name} was {before.get(name)}, and is {now}"
            if name == "recipe":  # a digest
                problem = "holds a sweep of a recipe, or of overrides, that were others"
            hint = "--overwrite replaces it, or name another --output"
            raise RecipeError(problem, place=str(folder), hint=hint)


def _grid(asked: "Asked", space: Mapping[str, spaces.Values]) -> list[dict[str, str]]:
    if asked.sampler != "grid":
        return []
    values = spaces.combinations(space)
    texts = [[json.dumps(each) for each in own] for own in values.values()]
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*texts)]


def _take_up(study: optuna.Study) -> None:
    """Put the trials that a stopped or killed sweep has left into the queue again: of two in the
    same folder, the later one counts."""
    for each in study.get_trials(states=(TrialState.RUNNING,)):
        attributes = {"folder": each.user_attrs.get("folder", folder_name(each.number))}
        study.enqueue_trial(each.params, user_attrs=attributes)
        study.tell(each.number, state=TrialState.FAIL)


def _distribution(values: spaces.Values) -> BaseDistribution:
    """Choices are JSON texts: Optuna knows no lists and mappings."""
    if isinstance(values, list):
        return CategoricalDistribution([json.dumps(value) for value in values])
    if values.whole:
        step = 1 if values.step is None else int(values.step)
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=step)
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)
