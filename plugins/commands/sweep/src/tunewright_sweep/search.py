"""The search: an Optuna study in the sweep's folder, whose trials are runs."""

import itertools
import json
import math
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from tunewright import RecipeError, RunError, check
from tunewright.errors import Stopped
from tunewright.evaluation import best_metric, evaluation_sets
from tunewright.stopper import Stopper
from tunewright.terminal import printable
from tunewright_sweep import space as spaces
from tunewright_sweep.results import best_of, chosen, trials_of, write_results
from tunewright_sweep.trial import Ended, Metric, run_trial

__all__ = ["Asked", "sweep"]

STUDY = "study.db"
_TRIALS = "trials"
_DEFAULT = 20  # trials
_FAILURES = 3  # of the first trials, after which the sweep ends
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Asked:
    """A sweep as the command line describes it; see `command` for the fields."""

    recipe: Path
    output: Path
    overrides: tuple[str, ...] = ()
    varied: tuple[str, ...] = ()
    space: Path | None = None
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: int | None = None
    metric: str | None = None
    maximize: bool | None = None
    prune: bool = False
    jobs: int = 1
    seed: int = 0
    trust_remote_code: bool = False


def sweep(asked: Asked, *, overwrite: bool = False) -> None:
    """Run trials until there are enough, and write the results. Raises RecipeError where the
    recipe, the fields or the folder do not fit; RunError if no trial succeeds; Stopped."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values = spaces.read(asked.varied, asked.space)
    resolved = check.resolve(asked.recipe, list(asked.overrides), look=True)
    metric = judged(resolved, asked.metric, asked.maximize)
    if overwrite and (asked.output / STUDY).is_file():
        shutil.rmtree(asked.output)
    search = _Search(asked, values, metric)
    with Stopper() as stopper:
        search.run(stopper)
    write_results(search.study, metric, asked)
    if stopper():
        left = "the same command goes on"
        raise Stopped("stopped", place=str(asked.output), hint=left)
    if not search.succeeded():
        raise RunError(
            "no trial succeeded", place=str(asked.output), hint="results.json has their errors"
        )


def judged(resolved: check.Resolved, name: str | None, rises: bool | None) -> Metric:
    """The metric that trials are compared by, of the last stage. Raises RecipeError."""
    stage = resolved.stages[-1]
    sets = evaluation_sets(resolved, stage)
    of, found = "", name or "loss"
    if sets:
        wanted = name or stage.training.metric_for_best_model
        try:
            training = stage.training.model_copy(update={"metric_for_best_model": wanted})
            of, found = best_metric(training, sets)
        except RecipeError as error:
            raise RecipeError(error.problem, place="--metric", hint=error.hint) from error
        known = getattr(stage.choice.make(), "eval_metrics", ())
        if known and found not in known:
            there = ", ".join(f"{of}_{each}" for each in known)
            problem = f"no evaluation of {stage.choice.entry.name} gives {found!r}"
            raise RecipeError(problem, place="--metric", hint=f"there is: {there}")
    elif name not in (None, "loss"):
        hint = "give eval_data, or leave --metric out for the training loss"
        raise RecipeError("the recipe has no evaluation set", place="--metric", hint=hint)
    if rises is None:
        rises = stage.training.greater_is_better
    rises = not found.endswith("loss") if rises is None else rises
    return Metric(of, found, rises, len(resolved.stages))


@dataclass
class _Search:
    asked: Asked
    space: Mapping[str, spaces.Values]
    metric: Metric
    study: optuna.Study = field(init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the study, between threads

    def __post_init__(self) -> None:
        asked = self.asked
        self.grid = spaces.combinations(self.space) if asked.sampler == "grid" else {}
        chosen = self.grid or self.space
        self.distributions = {name: _distribution(values) for name, values in chosen.items()}
        folder = asked.output
        if folder.exists() and not (folder / STUDY).is_file() and any(folder.iterdir()):
            hint = "name another folder"
            raise RecipeError("holds something else than a sweep", place=str(folder), hint=hint)
        (folder / _TRIALS).mkdir(parents=True, exist_ok=True)
        storage = f"sqlite:///{(folder / STUDY).resolve()}"
        self.study = optuna.create_study(
            study_name="sweep",
            storage=storage,
            load_if_exists=True,
            direction="maximize" if self.metric.rises else "minimize",
            pruner=optuna.pruners.MedianPruner() if asked.prune else optuna.pruners.NopPruner(),
        )
        self._is_the_same()
        self.study.sampler = self._sampler()
        self._continue()

    def _is_the_same(self) -> None:
        """Note the settings, or compare them with those of the sweep that is continued."""
        asked = self.asked
        spaces_ = {name: repr(values) for name, values in self.space.items()}
        settings = {
            "recipe": str(asked.recipe.resolve()),
            "overrides": list(asked.overrides),
            "fields": spaces_,
            "sampler": asked.sampler,
            "metric": str(self.metric),
            "rises": self.metric.rises,
        }
        before = self.study.user_attrs.get("settings")
        if before is None:
            self.study.set_user_attr("settings", settings)
            for values in self._combinations():
                self.study.enqueue_trial(values)
        elif differs := [name for name in settings if before.get(name) != settings[name]]:
            hint = "--overwrite replaces it, or name another --output"
            name = differs[0]
            problem = f"holds a sweep whose {name} was {before.get(name)}, and is {settings[name]}"
            raise RecipeError(problem, place=str(asked.output), hint=hint)

    def _combinations(self) -> list[dict[str, str]]:
        if not self.grid:
            return []
        texts = [[json.dumps(value) for value in values] for values in self.grid.values()]
        return [dict(zip(self.grid, each, strict=True)) for each in itertools.product(*texts)]

    def _sampler(self) -> optuna.samplers.BaseSampler:
        # a sweep that goes on draws other values than those it has drawn
        seed = (self.asked.seed + 1_000_003 * len(self.study.trials)) % 2**32
        if self.asked.sampler == "tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=self.asked.jobs > 1)
        return optuna.samplers.RandomSampler(seed=seed)

    def _continue(self) -> None:
        """Take up the trials that a stopped or killed sweep has left: of two in the same folder,
        the later one counts."""
        for each in self.study.get_trials(states=(TrialState.RUNNING,)):
            attributes = {"folder": each.user_attrs.get("folder", _folder(each.number))}
            self.study.enqueue_trial(each.params, user_attrs=attributes)
            self.study.tell(each.number, state=TrialState.FAIL)

    def succeeded(self) -> bool:
        return bool(self.study.get_trials(states=(TrialState.COMPLETE,)))

    # ---- trials ----------------------------------------------------------------------------------

    def run(self, stopper: Stopper) -> None:
        """Run trials until there are enough, some at once. It ends early where the first all
        fail."""
        everything = math.prod(map(len, self.grid.values())) if self.grid else _DEFAULT
        wanted = self.asked.trials or everything
        wanted = min(wanted, everything) if self.grid else wanted
        left = wanted - len([each for each in trials_of(self.study) if each.state.is_finished()])
        failures, free = 0, list(range(self.asked.jobs))
        running: dict[Future[Ended], int] = {}
        with ThreadPoolExecutor(self.asked.jobs) as pool:
            while (left > 0 and not stopper()) or running:
                while left > 0 and free and not stopper():
                    place = free.pop()
                    running[pool.submit(self._one, place, stopper)] = place
                    left -= 1
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for each in done:
                    free.append(running.pop(each))
                    failures += each.result().state == "failed"
                if failures >= _FAILURES and not self.succeeded():
                    left = 0

    def _one(self, place: int, stopper: Stopper) -> Ended:
        """The next trial, in one of the places that run at once."""
        with self._lock:
            trial = self.study.ask(dict(self.distributions))
        name = trial.user_attrs.get("folder", _folder(trial.number))
        trial.set_user_attr("folder", name)
        folder = self.asked.output / _TRIALS / name
        fields = [f"{key}={value}" for key, value in chosen(trial.params).items()]
        overrides = [*self.asked.overrides, *fields]

        def worse(step: int, value: float) -> bool:
            with self._lock:
                if step not in reported:
                    reported.add(step)
                    trial.report(value, step)
                return trial.should_prune()

        reported: set[int] = set()
        ended = self._refused(overrides)
        if ended is None:
            arguments = [str(self.asked.recipe), *overrides, f"output={folder}", "--resume"]
            if self.asked.trust_remote_code:
                arguments.append("--trust-remote-code")
            arguments += self._port(place)
            ended = run_trial(arguments, folder, self.metric, self._devices(place), worse, stopper)
        self._tell(trial, name, fields, ended)
        return ended

    def _refused(self, overrides: list[str]) -> Ended | None:
        try:
            check.resolve(self.asked.recipe, overrides)
        except RecipeError as error:
            return Ended(error="; ".join(error.lines))
        return None

    def _port(self, place: int) -> list[str]:
        """Trials of several processes meet at ports of their own."""
        launch = check.resolve(self.asked.recipe, list(self.asked.overrides)).recipe.launch
        port = launch.options.get("main_port")
        if self.asked.jobs == 1 or launch.ranks == 1 or port is None:
            return []
        return [f"launch.main_port={port + place}"]

    def _devices(self, place: int) -> dict[str, str]:
        """The part of CUDA_VISIBLE_DEVICES that is this place's."""
        visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        share = len(visible) // self.asked.jobs
        if self.asked.jobs == 1 or not share:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible[place * share : (place + 1) * share])}

    def _tell(self, trial: optuna.Trial, name: str, fields: list[str], ended: Ended) -> None:
        if ended.state == "stopped":  # it stays open: the sweep goes on with it
            return
        for key in ("error", "seconds", "step"):
            trial.set_user_attr(key, getattr(ended, key))
        with self._lock:
            value = ended.value if ended.state == "complete" else None
            self.study.tell(trial, value, state=_STATES[ended.state])
            best = best_of(self.study)
        shown = f"{self.metric} {ended.value:.6g}" if ended.value is not None else ended.error
        line = f"{name}: {ended.state}, {shown}" + (f", {' '.join(fields)}")
        if best is not None and ended.state == "complete":
            line += f" (best: {best.value:.6g}, {best.user_attrs['folder']})"
        print(printable(line), file=sys.stderr, flush=True)


def _folder(number: int) -> str:
    return f"trial-{number:04}"


def _distribution(values: spaces.Values) -> BaseDistribution:
    """As Optuna has it; choices are JSON texts, which may be of any type."""
    if isinstance(values, list):
        return CategoricalDistribution([json.dumps(value) for value in values])
    if values.whole:
        step = 1 if values.step is None else int(values.step)
        return IntDistribution(int(values.low), int(values.high), log=values.log, step=step)
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)
