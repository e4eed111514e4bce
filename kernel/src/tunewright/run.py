"""A run: `train` and `_train_one` read top to bottom, step by step. Everything that they call by
name is a plugin."""

import gc
import signal
import threading
from pathlib import Path
from typing import Any

from tunewright import events, folder, types
from tunewright.check import Source, read, stage_recipe
from tunewright.context import Run, detect_family
from tunewright.errors import RecipeError, RunError, Stopped
from tunewright.recipe import Recipe, Section

__all__ = ["Run", "open_run", "smoke", "train"]


def train(
    recipe: Recipe,
    source: Source | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    limit: int | None = None,
) -> types.StageResult:
    """Do all that a recipe says. limit: rows of each source. Raises TunewrightError; Stopped on
    Ctrl-C or SIGTERM."""
    run = Run(recipe, source, trust_remote_code=trust_remote_code)
    for number in range(len(run.recipe.stages)):
        run.use_stage(number)  # what is broken stops the run here, before anything is loaded
    with folder.locked(run.folder, run.rank):
        state = folder.claim(
            run.folder, run.recipe.as_dict(), rank=run.rank, resume=resume, overwrite=overwrite
        )
        stopper = _Stopper()
        status, error, result, prior = "failed", "", None, None
        with run.reporting():
            try:
                started: dict[str, Any] = {
                    "recipe": state["recipe"],
                    "versions": state["libraries"],
                }
                started["resumed_from"] = str(run.folder) if state["resumed"] else None
                run.emit(events.RunStarted(folder=str(run.folder), **started))
                for number in range(len(run.recipe.stages)):
                    result = _train_one(run, number, state, prior, stopper, limit)
                    # a stage that trains a model which judges hands on the model that it began with
                    prior = result if run.use_stage(number).plugin.head == "causal_lm" else prior
                status = "completed"
            except (Stopped, KeyboardInterrupt) as stopped:
                hint = f"go on with: tunewright train {run.folder / folder.RECIPE_FILE} --resume"
                status, error = (
                    "interrupted",
                    getattr(stopped, "problem", "stopped at once, nothing was saved"),
                )
                raise Stopped(error, hint=hint) from stopped
            except BaseException as failure:
                error = f"{type(failure).__name__}: {failure}"
                raise
            finally:
                stopper.restore()
                state["status"] = status
                folder.save(run.folder, state, run.rank)
                run.emit(
                    events.RunFinished(status=status, folder=str(run.folder), error=error or None)
                )
    assert result is not None  # a recipe has at least one stage
    return result


def _train_one(
    run: Run,
    number: int,
    state: dict[str, Any],
    prior: types.StageResult | None,
    stopper: "_Stopper",
    limit: int | None,
) -> types.StageResult:
    """One entry of `stages`: load, adapt, read data, train. prior: the language model that stages
    before it made."""
    done = state["stages"]
    if number < len(done):  # before the interruption that this run resumes from
        return folder.result(run.folder, done[number])
    stage, training = run.use_stage(number).plugin, stage_recipe(run.recipe, number).training
    base = (
        run.folder
        if len(run.recipe.stages) == 1
        else run.folder / "stages" / f"{number + 1}-{stage.name}"
    )

    gc.collect()  # trainers hold their model in cycles: the stage before would keep its memory
    loaded = run.load(head=stage.head, prior=prior)
    others: dict[types.ModelRole, types.LoadedModel] = {
        role: run.load(prior=prior, trainable=False) for role in stage.models if role != "policy"
    }

    run.emit(events.StepStarted(step="build_dataset"))
    data: types.Data = run.call("dataset", "build_dataset", run.data_request(loaded, number, limit))
    for note in data.notes:
        run.emit(events.Notice(message=note))
    for reason, count in data.dropped.items():
        run.emit(
            events.Notice(
                message=f"{count} of {data.rows_read} rows dropped: {reason}", level="warning"
            )
        )
    if state["data"].setdefault(str(number), data.fingerprint) != data.fingerprint:
        raise RunError(
            "the data is not what it was when the run began",
            place=str(run.folder),
            hint="--overwrite begins anew",
        )
    folder.save(run.folder, state, run.rank)

    run.emit(events.StepStarted(step="train_stage", detail=stage.name))
    checkpoint = folder.last_checkpoint(base) if state["resumed"] else None
    request = types.TrainRequest(
        loaded, data, training, base, others, checkpoint, stopper, number + 1
    )
    result: types.StageResult = run.call("stage", "train_stage", request)
    stage_state = folder.describe(run.folder, stage.name, result, rows=len(data.train))
    told = {"path": stage_state["path"], "metrics": result.metrics}
    run.emit(events.StageFinished(stage=stage.name, steps=result.steps, **told))
    done.append(stage_state)
    folder.save(run.folder, state, run.rank)
    return result


class _Stopper:
    """Ctrl-C and SIGTERM ask the run to save and stop; a second Ctrl-C stops it at once."""

    def __init__(self) -> None:
        self._asked = False
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {
                number: signal.signal(number, self._ask)
                for number in (signal.SIGINT, signal.SIGTERM)
            }

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True

    def __call__(self) -> bool:
        return self._asked

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def smoke(recipe: Recipe, steps: int = 3) -> Recipe:
    """The same recipe on the family's tiny twin, for a few steps in a folder of its own. Raises
    RecipeError."""
    short = {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "max_length": 512,
    }
    stages = [
        stage.model_copy(update={"training": {**stage.training, **short}})
        for stage in recipe.stages
    ]
    family = recipe.family or Section(name=detect_family(recipe))
    return recipe.model_copy(
        update={
            "model": "tiny",
            "family": family,
            "stages": stages,
            "output": f"{recipe.output.rstrip('/')}-smoke",
        }
    )


def open_run(path: Path, *, trust_remote_code: bool = False) -> Run:
    """A run folder for use: its plugins, with `load_policy` giving the trained model. Raises
    RecipeError."""
    state = folder.read(path)
    if not state:
        raise RecipeError(
            "is no run folder",
            place=str(path),
            hint="give the `output` of a recipe that was trained",
        )
    if not state["stages"]:
        raise RecipeError(
            f"holds a run that is {state['status']}, nothing trained yet", place=str(path)
        )
    recipe, source = read(path / folder.RECIPE_FILE, [f"output={path}"])
    return Run(recipe, source, trust_remote_code=trust_remote_code)
