"""A run: `train` and `_train_one` read top to bottom. All work is done by plugins.

Also the Python API: `tunewright.train`, `tunewright.open_run`.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunewright import events, folder, preflight, types
from tunewright.check import Resolved, resolve, with_values
from tunewright.context import Run
from tunewright.detection import detect_family
from tunewright.errors import RecipeError, RunError, Stopped
from tunewright.mirror import Mirror, mirror_of
from tunewright.ranks import Ranks, ranks_of
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
    strict: bool = False,
) -> types.StageResult:
    """Train as a recipe says.

    recipe: a YAML file, its values as a mapping, or what `resolve` returned. overrides: such as
    `training.epochs=3`. on_event: called with every event, in the thread that emits it. resume:
    continue from the last checkpoint in `output`. overwrite: replace the run there. limit: rows per
    source. strict: raise RecipeError where a stage is not expected to fit in memory, in place of a
    warning. Returns the last stage's result. Raises TunewrightError; Stopped on Ctrl-C or SIGTERM.
    """
    resolved = recipe if isinstance(recipe, Resolved) else resolve(recipe, overrides)
    run = Run(resolved, trust_remote_code=trust_remote_code, on_event=on_event)
    ranks = ranks_of(run)
    with Stopper() as run.stop_requested, _together(run, ranks):
        mirror = mirror_of(run)
        own = None if run.rank else _claimed(run, mirror, resume=resume, overwrite=overwrite)
        state = ranks.share("run", own)
        use_stored_template(run, state)
        status, error = "failed", ""
        watching = (StateWriter(run.folder, state), mirror)
        with contextlib.closing(mirror), run.reporting(watching):
            try:
                run.emit(_started(run, state))
                preflight.warn(run, strict=strict)
                result = _train_all(run, ranks, state, limit)
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
                # on a full disk, the original error is the one to report
                with contextlib.suppress(*([RunError] if error else [])):
                    folder.save(run.folder, state, run.rank)
                    run.emit(ended)
    return result


@contextlib.contextmanager
def _together(run: Run, ranks: Ranks) -> Iterator[None]:
    """Wait for the other ranks, then lock the run folder, on rank 0: it alone reads and writes."""
    ranks.begin()
    with folder.locked(run.folder, run.rank):
        yield


def _claimed(run: Run, mirror: Mirror, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    """State of the run: the one to resume, or a new one. On rank 0: others may not see it."""
    recipe, artifacts = run.recipe.as_dict(), run.artifacts()
    if resume:
        mirror.pull()
    if resume and (old := folder.read(run.folder)):
        check_same(old["recipe"], run.resolved, run.folder, len(old["stages"]))
        artifacts = sorted({*artifacts, *folder.artifacts_of(old)})
        changed = {"recipe": recipe, "artifacts": artifacts, "status": "running", "resumed": True}
        folder.write_recipe(run.folder, recipe)
        state = {**old, **changed}
    else:
        state = folder.claim(run.folder, recipe, artifacts, overwrite=overwrite)
    mirror.begin(state, overwrite)
    return state


def use_stored_template(run: Run, state: dict[str, Any]) -> None:
    """Use the template that the run was trained with, whatever the families list today; but not in
    place of one that is named on the command line."""
    section = folder.template(run.folder, state)
    if section and not run.from_command_line("template"):
        run.use("template", section)


def _started(run: Run, state: dict[str, Any]) -> events.RunStarted:
    return events.RunStarted(
        folder=str(run.folder),
        recipe=state["recipe"],
        versions=state["libraries"],
        resumed_from=str(run.folder) if state["resumed"] else None,
    )


def _train_all(
    run: Run, ranks: Ranks, state: dict[str, Any], limit: int | None
) -> types.StageResult:
    """Train all stages in turn. Returns the last one's result."""
    result = prior = None
    for number in range(len(run.resolved.stages)):
        if result is not None:  # the next stage may continue from it, on every host
            result = replace(result, path=ranks.folder(result.path))
            # a reward model is used by later stages, which continue from the policy before it
            match run.stage(number - 1).head:
                case "causal_lm":
                    prior = result
                case "score" if not run.stage(number - 1).embedding.pair_prompt:  # no reranker
                    run.scorer = result
        result = _train_one(run, ranks, number, state, prior, limit)
    assert result is not None  # a recipe has at least one stage
    return result


def _train_one(
    run: Run,
    ranks: Ranks,
    number: int,
    state: dict[str, Any],
    prior: types.StageResult | None,
    limit: int | None,
) -> types.StageResult:
    """Run one entry of `stages`: load, adapt, read data, train. prior: the policy of earlier
    stages."""
    done = state["stages"]
    if number < len(done):  # finished before the interruption
        return folder.result(run.folder, done[number], look=run.rank == 0)
    run.begin_stage(number)
    stage, training = run.stage(number), run.resolved.stages[number].training
    own = run.folder / "stages" / f"{number + 1}-{stage.name}"
    base = run.folder if len(run.resolved.stages) == 1 else own

    run.check_stop()
    gc.collect()  # trainers hold their model in reference cycles: free the previous stage's memory
    loaded = run.load(head=stage.head, prior=prior)
    if run.template is not None:
        state["template"] = run.template.model_dump(mode="json")
    others: dict[types.ModelRole, types.LoadedModel] = {}
    for role in (role for role in stage.models if role != "policy"):
        run.check_stop()
        others[role] = run.load(prior=prior, trainable=False)

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
    loaded = run.prepare_adapter(loaded, data)

    run.check_stop()
    run.emit(events.StepStarted(step="train_stage", detail=stage.name))
    checkpoint = _last_checkpoint(run, ranks, base, stage.name) if state["resumed"] else None
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


def _last_checkpoint(run: Run, ranks: Ranks, base: Path, stage: str) -> Path | None:
    """The newest checkpoint that rank 0 sees. Elsewhere it need not exist."""
    last = None if run.rank else folder.last_checkpoint(base)
    name = ranks.share("checkpoint", last and last.name)
    if name is None:
        run.emit(events.Notice(message=f"no checkpoint to resume from: {stage} begins anew"))
        return None
    return base / "checkpoints" / str(name)


def smoke(resolved: Resolved, steps: int = 3) -> Resolved:
    """A recipe for `--smoke`: the same on the checkpoint's tiny model, for a few steps, with its
    own `output`. Raises RecipeError."""
    short = {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "max_length": 2048,
    }
    values = resolved.recipe.as_mapping()
    for stage in values["stages"]:
        stage["training"] = {**stage.get("training", {}), **short}
    family = values.get("family") or {"name": detect_family(resolved.recipe.model)}
    output = f"{resolved.recipe.output.rstrip('/')}-smoke"
    changes = {"model": "tiny", "family": family, "stages": values["stages"], "output": output}
    again = with_values(resolved, **changes)
    again.smoke_of = None if resolved.recipe.model == "tiny" else resolved.recipe.model
    return again


def open_run(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    trust_remote_code: bool = False,
    on_event: Listener | None = None,
) -> Run:
    """Open a run folder: `load_policy` loads the trained model. overrides: of its recipe, such as
    `family.device=cpu`. Raises RecipeError."""
    resolved, state = resolve_run(path, overrides)
    if not state["stages"]:
        problem = f"holds a run that is {state.get('status')}, nothing trained yet"
        last = folder.last_checkpoint(Path(resolved.recipe.output))
        hint = f"its last checkpoint is {last}" if last else ""
        raise RecipeError(problem, place=str(path), hint=hint)
    run = Run(resolved, trust_remote_code=trust_remote_code, on_event=on_event)
    use_stored_template(run, state)
    return run


def resolve_run(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Resolved, dict[str, Any]]:
    """The recipe of a run folder, and the content of its run.json. Raises RecipeError."""
    path = Path(path).expanduser()
    state = folder.read(path)
    if not state:
        hint = "give the `output` of a recipe that was trained"
        raise RecipeError("is no run folder", place=str(path), hint=hint)
    # it was accepted when it was trained, perhaps with more processes and other devices than here
    resolved = resolve(path / folder.RECIPE_FILE, overrides, combined=False)
    resolved.recipe = resolved.recipe.model_copy(update={"output": str(path)})
    return resolved, state
