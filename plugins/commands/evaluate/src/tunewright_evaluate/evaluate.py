"""Evaluate runs, one after the other."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunewright import RecipeError, RunError, folder
from tunewright.cli_common import print_json
from tunewright.context import Run
from tunewright.errors import Stopped
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.inference import EngineRequest, InferenceEngine
from tunewright.registry import PluginCaller
from tunewright.terminal import printable, progress_bar, told
from tunewright.types import RunContext
from tunewright.words import counted, distinct_names
from tunewright_evaluate.arguments import Settings
from tunewright_evaluate.results import Results
from tunewright_evaluate.show import chart, print_table, table
from tunewright_hf.inference.opened_runs import OpenedRun, policy_digest
from tunewright_hf.inference.opening import open_target

__all__ = ["evaluate"]


def evaluate(targets: list[str], settings: Settings, engine: EngineRequest) -> None:
    """Evaluate models, and print a table. Raises RunError at the end if examples have failed."""
    runs = [_opened(target, settings) for target in targets]
    evaluators = [run.named("evaluator", settings.evaluator, **settings.options) for run in runs]
    pairs = evaluators[0].plugin.runs == 2
    if pairs and len(runs) < 2:
        problem = f"{settings.evaluator} compares runs, and one is named"
        raise RecipeError(problem, place="command line", hint="name a second MODEL")
    jobs: list[tuple[Run, Run | None, PluginCaller]] = (
        [(runs[0], other, evaluators[0]) for other in runs[1:]]
        if pairs
        else [(run, None, caller) for run, caller in zip(runs, evaluators, strict=True)]
    )
    places = [Path(each).expanduser() for each in (targets[1:] if pairs else targets)]
    names = distinct_names(places)
    own = Path(targets[0]).expanduser().resolve().name
    found: dict[str, EvaluationResult] = {}
    for (run, other, caller), name in zip(jobs, names, strict=True):
        place = _place(
            run, own if pairs else name, name, settings, several=len(jobs) > 1, pairs=pairs
        )
        results = Results(place, _identity(run, other, caller, settings, engine))
        found[name] = _evaluated(run, other, caller, results, name, settings, engine)
    if settings.as_json:
        print_json({name: Results.as_json(result) for name, result in found.items()})
    else:
        print_table(found)
    if failed := sum(result.errors for result in found.values()):
        raise RunError(f"{counted(failed, 'example')} could not be evaluated", place=str(place))


def _opened(target: str, settings: Settings) -> Run:
    engine = [] if settings.engine is None else [f"engine={settings.engine}"]
    return open_target(
        target,
        [*settings.changes, *engine],
        data=True,
        trust_remote_code=settings.trust_remote_code,
        on_event=told,
    )


def _place(
    run: Run, own: str, name: str, settings: Settings, *, several: bool, pairs: bool
) -> Path:
    """Folder of the results. own: name of the run's model. name: of the results."""
    if settings.output is not None:
        return settings.output / name if several else settings.output
    label = f"{settings.name}-{name}" if pairs else settings.name
    if isinstance(run, OpenedRun):  # a folder that is not ours to write
        return Path("evaluations") / own / label
    return run.folder / "evaluations" / label


def _identity(
    run: Run, other: Run | None, caller: PluginCaller, settings: Settings, engine: EngineRequest
) -> dict[str, Any]:
    """Settings on which results depend, as JSON."""
    found: dict[str, Any] = {"evaluator": caller.entry.name, "changes": settings.changes}
    found["run"] = policy_digest(run)
    if other is not None:
        found["other"] = policy_digest(other)
    found["engine"] = run.plugin("engine").name
    for name in ("max_length", "sampling_defaults"):
        found[name] = getattr(engine, name)
    options = caller.plugin.options
    free = {
        name
        for name, field in type(options).model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("may_change")
    }
    return found | options.model_dump(mode="json", exclude=free) | caller.plugin.identity(run)


def _evaluated(
    run: Run,
    other: Run | None,
    caller: PluginCaller,
    results: Results,
    name: str,
    settings: Settings,
    engine: EngineRequest,
) -> EvaluationResult:
    """The result of one evaluation: the one that is there, or a new one."""
    if there := results.begin(overwrite=settings.overwrite):
        _say(f"{name}: {results.folder} is complete")
        return there

    def opened(each: RunContext) -> InferenceEngine:
        found: InferenceEngine = each.call("engine", "open_engine", engine)
        return found

    with progress_bar() as bar:
        request = EvaluationRequest(results.folder, opened, _say, _titled(bar, name), other)
        try:
            result: EvaluationResult = caller.call("evaluate_model", run=run, request=request)
        except KeyboardInterrupt:
            hint = "the same command goes on"
            raise Stopped(f"stopped, {results.folder} is not complete", hint=hint) from None
    results.finish(result, name)
    folder.write(results.folder, "table.md", table({name: result}) + "\n")
    chart({name: result}, results.folder / "chart.png")
    return result


def _titled(bar: Callable[[str, int, int], None], name: str) -> Callable[[str, int, int], None]:
    return lambda what, done, total: bar(f"{name}: {what}", done, total)


def _say(message: str) -> None:
    print(printable(message), file=sys.stderr)
