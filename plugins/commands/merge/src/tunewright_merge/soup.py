"""Choice of a run's checkpoints for a model soup (Wortsman et al. 2022, arXiv:2203.05482). Imports
no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewright import RecipeError, folder
from tunewright.evaluation import best_metric
from tunewright.run import resolve_run
from tunewright.state import EVENTS_FILE
from tunewright_hf.checkpoints.folder import checkpoints as complete

_PLACE = "command line: --soup"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Data by which a greedy soup is made."""

    run: Path  # its folder
    name: str  # a set of the recipe's eval_data


def checkpoints(run: Path, written: str) -> list[Path]:
    """The checkpoints that `--soup` names, of the last stage that has some.

    written: last:N, best:N or step-10,step-20. Raises RecipeError.
    """
    stage, found = _found(run)
    names = ", ".join(path.name for path in found)
    how, colon, number = written.partition(":")
    if not colon:
        by_name = {path.name: path for path in found}
        asked = [each.strip() for each in written.split(",")]
        for each in asked:
            if each not in by_name:
                hint = f"there is: {names}; or last:N, best:N, greedy"
                raise RecipeError(f"no checkpoint is {each!r:.60}", place=_PLACE, hint=hint)
        return [by_name[each] for each in dict.fromkeys(asked)]
    if how not in ("last", "best") or not number.isdecimal() or int(number) < 2:
        problem = (
            f"found {written!r:.60}, expected last:N or best:N, from N = 2, greedy, or "
            "step-10,step-20"
        )
        raise RecipeError(problem, place=_PLACE)
    ranked = found[::-1] if how == "last" else _best_first(run, stage, found)
    if len(ranked) < int(number):
        which = "" if how == "last" else " of steps that were evaluated"
        problem = f"asks for {number} checkpoints{which}, and there are {len(ranked)}: {names}"
        hint = "training.save_total_limit is how many are kept"
        raise RecipeError(problem, place=_PLACE, hint=hint)
    return ranked[: int(number)]


def candidates(run: Path) -> tuple[list[Path], HeldOut]:
    """The checkpoints of a greedy soup, by the loss of their evaluation, the least first, and the
    data that decide. Raises RecipeError."""
    stage, found = _found(run)
    resolved, _ = resolve_run(run, [])
    plugin, training = resolved.stages[stage].choice.plugin, resolved.stages[stage].training
    if plugin.rows not in ("messages", "text") or plugin.head != "causal_lm":
        name = resolved.stages[stage].choice.entry.name
        problem = f"greedy goes by the loss of text, which stage {name} does not train on"
        raise RecipeError(problem, place=_PLACE, hint="best:N goes by evaluations of any stage")
    if stage != len(resolved.stages) - 1:
        problem = "greedy measures on the last stage's eval_data, and it has no checkpoints"
        raise RecipeError(problem, place=_PLACE)
    evaluated = _evaluations(run, stage)
    name = best_metric(training, list(evaluated))[0] if evaluated else ""
    ranked = _ranked(found, evaluated.get(name, {}), "loss", rises=False)
    if len(ranked) < 2:
        problem = f"greedy needs two checkpoints of steps that were evaluated, found {len(ranked)}"
        hint = "training.save_steps and training.eval_steps say at which steps"
        raise RecipeError(problem, place=_PLACE, hint=hint)
    if name not in resolved.stages[stage].eval_data:
        problem = f"greedy measures on a set of eval_data, and {name} is none"
        raise RecipeError(problem, place=_PLACE, hint="best:N goes by the evaluations of the run")
    return ranked, HeldOut(run, name)


def _found(run: Path) -> tuple[int, list[Path]]:
    """Stage and checkpoints as `_of_last_stage` finds them. Raises RecipeError if there are
    none."""
    if not (run / folder.RUN_FILE).is_file():
        hint = "name the `output` of a recipe"
        raise RecipeError("is no run folder", place=str(run), hint=hint)
    stage, found = _of_last_stage(run)
    if not found:
        hint = "training.save_steps writes checkpoints, training.save_total_limit keeps them"
        raise RecipeError("holds no complete checkpoint", place=str(run), hint=hint)
    return stage, found


def _of_last_stage(run: Path) -> tuple[int, list[Path]]:
    """Number of the last stage with complete checkpoints (0 is the first), and these by steps."""
    if found := complete(run / "checkpoints"):
        return 0, found
    numbered = {
        int(path.name.partition("-")[0]): path
        for path in (run / "stages").glob("*-*")
        if path.name.partition("-")[0].isdecimal()
    }
    for number in sorted(numbered, reverse=True):
        if found := complete(numbered[number] / "checkpoints"):
            return number - 1, found
    return 0, []


def _best_first(run: Path, stage: int, found: list[Path]) -> list[Path]:
    """The checkpoints whose step was evaluated, best first, by the recipe's
    metric_for_best_model."""
    resolved, _ = resolve_run(run, [])
    training = resolved.stages[stage].training
    evaluated = _evaluations(run, stage)
    name, metric = best_metric(training, list(evaluated))
    rises = training.greater_is_better
    rises = not metric.endswith("loss") if rises is None else rises
    return _ranked(found, evaluated.get(name, {}), metric, rises=rises)


def _ranked(
    found: list[Path], evaluations: dict[int, dict[str, Any]], metric: str, *, rises: bool
) -> list[Path]:
    """The checkpoints whose step has the metric, best first. rises: higher is better."""
    values = {
        step: metrics[metric]
        for step, metrics in evaluations.items()
        if isinstance(metrics.get(metric), int | float)
    }
    kept = [path for path in found if int(path.name[5:]) in values]
    return sorted(kept, key=lambda path: values[int(path.name[5:])], reverse=rises)


def _evaluations(run: Path, stage: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Evaluation set → step → metrics of a stage, from the run's events. What a resumed run
    repeats, counts once."""
    sets: dict[str, dict[int, dict[str, Any]]] = {}
    number = 0
    file = run / EVENTS_FILE
    text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    for line in text.splitlines(keepends=True):
        event = json.loads(line) if line.endswith("\n") else {}
        if event.get("event") == "StageStarted":
            number = event["number"] - 1
        elif event.get("event") == "Evaluated" and number == stage:
            sets.setdefault(event["dataset"], {})[event["step"]] = event["metrics"]
    return sets
