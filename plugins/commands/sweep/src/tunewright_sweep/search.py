"""The search: trials, some at once, until there are enough."""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import optuna
from optuna.trial import TrialState

from tunewright import RecipeError, RunError, check
from tunewright.errors import Stopped
from tunewright.evaluation import best_metric, evaluation_sets, known_metrics
from tunewright.folder import locked
from tunewright.stopper import Stopper
from tunewright.terminal import printable
from tunewright_sweep import space as spaces
from tunewright_sweep import study as studies
from tunewright_sweep.results import best_of, chosen, trials_of, write_results
from tunewright_sweep.trial import Ended, Metric, run_trial

__all__ = ["Asked", "sweep"]

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
    space = spaces.read(asked.varied, asked.space)
    studies.distributions(asked, space)
    resolved = check.resolve(asked.recipe, list(asked.overrides), look=True)
    metric = judged(resolved, asked.metric, asked.maximize)
    settings = {
        "recipe": _digest(resolved),
        "sampler": asked.sampler,
        "metric": str(metric),
        "rises": metric.rises,
    }
    studies.check_folder(asked.output)
    with locked(asked.output, 0), Stopper() as stopper:
        if overwrite:
            studies.remove(asked.output)
        (asked.output / studies.TRIALS).mkdir(exist_ok=True)
        search = Search(asked, space, metric, studies.open_study(asked, space, settings))
        search.run(stopper)
        write_results(search.study, metric, asked)
    if stopper():
        raise Stopped("stopped", place=str(asked.output), hint="the same command goes on")
    if best_of(search.study) is None:
        raise RunError(
            "no trial succeeded", place=str(asked.output), hint="results.json has their errors"
        )


def _digest(resolved: check.Resolved) -> str:
    """Of all that the trials share: the recipe may hold secrets, which are not written down."""
    text = json.dumps(resolved.recipe.as_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


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
        known = known_metrics(stage)
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
class Search:
    """Runs the trials of a study."""

    asked: Asked
    space: Mapping[str, spaces.Values]
    metric: Metric
    study: optuna.Study
    _lock: threading.Lock = field(default_factory=threading.Lock)  # of the study, between threads
    _kill: threading.Event = field(default_factory=threading.Event)  # ends trials at once

    def run(self, stopper: Stopper) -> None:
        """Run trials until there are enough, some at once. It ends early where the first all
        fail."""
        left = studies.size(self.asked, self.space)
        left -= len([each for each in trials_of(self.study) if each.state.is_finished()])
        failures, free = 0, list(range(self.asked.jobs))
        running: dict[Future[Ended], int] = {}
        with ThreadPoolExecutor(self.asked.jobs) as pool:
            try:
                while (left > 0 and not stopper()) or running:
                    while left > 0 and free and not stopper():
                        place = free.pop()
                        running[pool.submit(self._one, place, stopper)] = place
                        left -= 1
                    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for each in done:
                        free.append(running.pop(each))
                        failures += each.result().state == "failed"
                    if failures >= _FAILURES and best_of(self.study) is None:
                        left = 0
            except BaseException:  # a second Ctrl-C; the pool waits for its threads
                self._kill.set()
                raise

    def _one(self, place: int, stopper: Stopper) -> Ended:
        """The next trial, in one of the places that run at once."""
        with self._lock:
            trial = self.study.ask(studies.distributions(self.asked, self.space))
        name = trial.user_attrs.get("folder", studies.folder_name(trial.number))
        trial.set_user_attr("folder", name)
        folder = self.asked.output / studies.TRIALS / name
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
            ended = run_trial(
                arguments, folder, self.metric, self._devices(place), worse, stopper, self._kill
            )
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
