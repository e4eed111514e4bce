"""Tasks of the harness on a run's model."""

import functools
import logging
import math
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from lm_eval.evaluator import evaluate as evaluate_tasks
from lm_eval.tasks import TaskManager

from tunewright import RecipeError, RunError, TunewrightError
from tunewright.errors import did_you_mean
from tunewright.evaluators import EvaluationRequest, EvaluationResult
from tunewright.types import RunContext
from tunewright_hf.predictions.lines import ResultLines
from tunewright_lm_eval.harness_model import HarnessModel
from tunewright_lm_eval.layouts import local_data

_Z = 1.96  # of 95 %
_BOOTSTRAP = 1000  # resamples, for metrics that are no means


def evaluate(run: RunContext, request: EvaluationRequest, options: Any) -> EvaluationResult:
    """Metrics of the tasks, with each example in samples.jsonl."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    names = [options.tasks] if isinstance(options.tasks, str) else options.tasks
    tasks = _tasks(names, options)
    for task in tasks["tasks"].values():
        _set_examples(task, options)
    _seed(options.seed)
    requests = request.folder / "requests.jsonl"
    requests.unlink(missing_ok=True)  # complete, of an evaluation that was then interrupted
    with ResultLines(requests, {}) as lines:
        model = HarnessModel(
            run,
            run.load_policy(),
            lines,
            request.progress,
            batch_size=options.batch_size,
            max_length=options.max_length,
        )
        try:
            found = evaluate_tasks(
                lm=model,
                task_dict=tasks,
                limit=options.limit,
                bootstrap_iters=_BOOTSTRAP,
                log_samples=True,
                system_instruction=options.system,
                apply_chat_template=options.chat_template,
                fewshot_as_multiturn=options.chat_template and options.fewshot_as_multiturn,
            )
        except TunewrightError:
            raise
        except ValueError as error:  # such as tasks that run the code of answers
            raise RecipeError(_one_line(error), place="tasks") from error
        lines.finish()
    _write_samples(request.folder, found["samples"])
    requests.unlink()  # samples.jsonl has them
    return _result(found, names)


def _tasks(names: list[str], options: Any) -> Any:
    """The tasks with their data. Raises RecipeError if there is no such task, RunError if its data
    cannot be read."""
    manager = _manager(options.include_path)
    for name in names:
        if name not in manager.all_tasks:
            hint = did_you_mean(name, manager.all_tasks)
            hint = hint if hint.startswith("did") else "lm-eval ls tasks lists them"
            raise RecipeError(f"the harness has no task {name!r}", place="tasks", hint=hint)
    folder = Path(options.data_folder).expanduser() if options.data_folder else None
    try:
        with local_data(folder):
            return manager.load(list(names))
    except TunewrightError:
        raise
    except Exception as error:  # of the hub, of data that does not fit, of a task's own code
        hint = "" if folder else "data_folder=FOLDER names local files"
        raise RunError(f"cannot be loaded: {_one_line(error)}", place="tasks", hint=hint) from error


@functools.cache
def _manager(include_path: str | None) -> Any:
    """Index of the tasks, which takes seconds to read."""
    return TaskManager(include_path=include_path and str(Path(include_path).expanduser()))


def _set_examples(task: Any, options: Any) -> None:
    """Set the number of solved examples, but where a task says that it takes none."""
    own = task.get_config("num_fewshot")
    if own is None or (options.num_fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=options.num_fewshot or 0)
    task.set_fewshot_seed(seed=options.seed)


def _seed(seed: int) -> None:
    random.seed(0)  # the harness's own defaults
    np.random.seed(seed)
    torch.manual_seed(seed)


def _write_samples(folder: Path, samples: dict[str, list[dict[str, Any]]]) -> None:
    (folder / "samples.jsonl").unlink(missing_ok=True)
    with ResultLines(folder / "samples.jsonl", {}, overwrite=True) as lines:
        number = 0
        for task, found in samples.items():
            for sample in found:
                number += 1
                lines.add({"row": number, "task": task, **sample})
        lines.finish()


def _result(found: dict[str, Any], names: list[str]) -> EvaluationResult:
    parts: dict[str, dict[str, float]] = {}
    margins: dict[str, float] = {}
    higher: dict[str, bool] = {}
    for task, values in {**found["results"], **found.get("groups", {})}.items():
        parts[task], given = _metrics(values)
        margins |= {f"{task}/{metric}": value for metric, value in given.items()}
        for metric, better in (found["higher_is_better"].get(task) or {}).items():
            higher |= {f"{task}/{metric}": False} if better is False else {}
    asked = [name for name in names if parts.get(name)] or [name for name in parts if parts[name]]
    metrics = {f"{task}/{metric}": value for task in asked for metric, value in parts[task].items()}
    counts = [each["effective"] for each in found["n-samples"].values()]
    return EvaluationResult(
        metrics,
        rows=sum(counts),
        parts={task: values for task, values in parts.items() if values and task not in asked},
        margins={name: value for name, value in margins.items() if name in metrics},
        higher_is_better=higher,
    )


def _metrics(values: dict[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of a task, and half the width of their confidence intervals."""
    metrics, margins = {}, {}
    for key, value in values.items():
        name, comma, chosen = key.partition(",")
        if not comma or not isinstance(value, int | float):
            continue
        label = name if chosen == "none" else f"{name} ({chosen})"
        if name.endswith("_stderr"):
            if math.isfinite(value):
                margins[label.replace("_stderr", "", 1)] = _Z * value
        else:
            metrics[label] = float(value)
    return metrics, margins


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
