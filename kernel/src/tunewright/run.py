"""A run: `train` and `_train_one` read top to bottom. What they call by name is a plugin.

Also the Python API: `tunewright.train`, `tunewright.open_run`.
"""

import contextlib
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewright import events, folder, types
from tunewright.check import Resolved, resolve, with_values
from tunewright.context import Run, detect_family
from tunewright.errors import RecipeError, RunError, Stopped
from tunewright.resume import check_same
from tunewright.state import StateWriter
from tunewright.stopper import Stopper

__all__ = ["Run", "open_run", "smoke", "train"]

Listener = Callable[[events.Event], None]


def train(
    recipe: str | Path | Mapping[str, Any] | Resolved,
    *,
    overrides: Sequence[str] = (),
    on_event: Listener | None = None,
    resume: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
    limit: int | None = None,
) -> types.StageResult:
    """Train as a recipe says.

    recipe: a YAML file, its values as a mapping, or what `resolve` returned. overrides: such as
    `training.epochs=3`. on_event: called with every event, in the thread that emits it. resume:
    continue from the last checkpoint in `output`. overwrite: replace the run there. limit: rows per
    source. Returns the last stage's result. Raises TunewrightError; Stopped on Ctrl-C or SIGTERM.
    """
    resolved = recipe if isinstance(recipe, Resolved) else resolve(recipe, overrides)
    run = Run(resolved, trust_remote_code=trust_remote_code, on_event=on_event)
    with folder.locked(run.folder, run.rank), Stopper() as run.stop_requested:
        state = _claimed(run, resume=resume, overwrite=overwrite)
        status, error, result, prior = "failed", "", None, None
        with run.reporting(StateWriter(run.folder, state)):
            try:
                run.emit(_started(run, state))
                for number in range(len(resolved.stages)):
                    result = _train_one(run, number, state, prior, limit)
                    # a reward model is for later stages to use: they go on from the policy before
                    prior = result if run.stage(number).head == "causal_lm" else prior
                status = "completed"
            except (Stopped, KeyboardInterrupt) as stopped:
                hint = f"go on with: tunewright train {run.folder / folder.RECIPE_FILE} --resume"
                problem = "stopped at once: what came after the last checkpoint is lost"
                status, error = "interrupted", getattr(stopped, "problem", problem)
                raise Stopped(error, hint=hint) from stopped
            except BaseException as failure:
                error = f"{type(failure).__name__}: {failure}"
                raise
            finally:
                state["status"] = status
                state.pop("running", None)
                ended = events.RunFinished(
                    status=status, folder=str(run.folder), error=error or None
                )
                # on a full disk what had failed before is what the user has to read
                with contextlib.suppress(*([RunError] if error else [])):
                    folder.save(run.folder, state, run.rank)
                    run.emit(ended)
    assert result is not None  # a recipe has at least one stage
    return result


def _claimed(run: Run, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    """The state of the run: the one to go on from, or a new one."""
    recipe, artifacts = run.recipe.as_dict(), run.artifacts()
    if resume and (old := folder.read(run.folder)):
        check_same(old["recipe"], run.resolved, run.folder, len(old["stages"]))
        artifacts = sorted({*artifacts, *folder.artifacts_of(old)})
        changed = {"recipe": recipe, "artifacts": artifacts, "status": "running", "resumed": True}
        if run.rank == 0:
            folder.write_recipe(run.folder, recipe)
        return {**old, **changed}
    return folder.claim(run.folder, recipe, artifacts, rank=run.rank, overwrite=overwrite)


def _started(run: Run, state: dict[str, Any]) -> events.RunStarted:
    return events.RunStarted(
        folder=str(run.folder),
        recipe=state["recipe"],
        versions=state["libraries"],
        resumed_from=str(run.folder) if state["resumed"] else None,
    )


def _train_one(
    run: Run,
    number: int,
    state: dict[str, Any],
    prior: types.StageResult | None,
    limit: int | None,
) -> types.StageResult:
    """One entry of `stages`: load, adapt, read data, train. prior: the policy of stages before."""
    done = state["stages"]
    if number < len(done):  # before the interruption that this run resumes from
        return folder.result(run.folder, done[number])
    run.begin_stage(number)
    stage, training = run.stage(number), run.resolved.stages[number].training
    own = run.folder / "stages" / f"{number + 1}-{stage.name}"
    base = run.folder if len(run.resolved.stages) == 1 else own

    run.check_stop()
    gc.collect()  # trainers hold their model in cycles: the stage before would keep its memory
    loaded = run.load(head=stage.head, prior=prior)
    others: dict[types.ModelRole, types.LoadedModel] = {
        role: run.load(prior=prior, trainable=False) for role in stage.models if role != "policy"
    }

    run.check_stop()
    run.emit(events.StepStarted(step="build_dataset"))
    asked = run.data_request(loaded, number, limit)
    data: types.Data = run.call("dataset", "build_dataset", asked)
    for note in data.notes:
        run.emit(events.Notice(message=note))
    for reason, count in data.dropped.items():
        message = f"{count} of {data.rows_read} rows dropped: {reason}"
        run.emit(events.Notice(message=message, level="warning"))
    if state["data"].setdefault(str(number), data.fingerprint) != data.fingerprint:
        problem = "the data is not what it was when the run began"
        raise RunError(problem, place=str(run.folder), hint="--overwrite begins anew")
    folder.save(run.folder, state, run.rank)

    run.check_stop()
    run.emit(events.StepStarted(step="train_stage", detail=stage.name))
    checkpoint = folder.last_checkpoint(base) if state["resumed"] else None
    if state["resumed"] and checkpoint is None:
        run.emit(events.Notice(message=f"no checkpoint to resume from: {stage.name} begins anew"))
    request = types.TrainRequest(
        loaded, data, training, base, others, checkpoint, run.stop_requested, number + 1
    )
    result: types.StageResult = run.call("stage", "train_stage", request)
    described = folder.describe(run.folder, stage.name, result, rows=len(data.train))
    done.append(described)
    folder.save(run.folder, state, run.rank)
    run.emit(
        events.StageFinished(
            stage=stage.name, steps=result.steps, path=described["path"], metrics=result.metrics
        )
    )
    return result


def smoke(resolved: Resolved, steps: int = 3) -> Resolved:
    """The same recipe on the tiny model of the recipe's checkpoint, for a few steps, with an
    `output` of its own. Raises RecipeError."""
    short = {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "max_length": 2048,
    }
    values = resolved.recipe.as_mapping()
    for stage in values["stages"]:
        stage["training"] = {**stage.get("training", {}), **short}
    family = values.get("family") or {"name": detect_family(resolved.recipe)}
    output = f"{resolved.recipe.output.rstrip('/')}-smoke"
    changes = {"model": "tiny", "family": family, "stages": values["stages"], "output": output}
    again = with_values(resolved, **changes)
    again.smoke_of = None if resolved.recipe.model == "tiny" else resolved.recipe.model
    return again


def open_run(path: str | Path, *, trust_remote_code: bool = False) -> Run:
    """A run folder for use: `load_policy` loads the trained model. Raises RecipeError."""
    path = Path(path).expanduser()
    state = folder.read(path)
    if not state:
        hint = "give the `output` of a recipe that was trained"
        raise RecipeError("is no run folder", place=str(path), hint=hint)
    if not state["stages"]:
        problem = f"holds a run that is {state.get('status')}, nothing trained yet"
        raise RecipeError(problem, place=str(path))
    resolved = resolve(path / folder.RECIPE_FILE)
    resolved.recipe = resolved.recipe.model_copy(update={"output": str(path)})
    return Run(resolved, trust_remote_code=trust_remote_code)
