"""Training as a job: a recipe that was checked, into the queue."""

import json
from collections.abc import Mapping
from typing import Any

from tunewright_web.errors import WebError
from tunewright_web.job import Job
from tunewright_web.jobs import RECIPE
from tunewright_web.run import Run
from tunewright_web.web import Web

__all__ = ["queue_resume", "queue_training"]


def queue_training(web: Web, recipe: Mapping[str, Any], text: str, *, smoke: bool = False) -> Job:
    """Queue the training of a recipe.

    recipe: its values, which were checked; text: the same as YAML. smoke: a few steps of the tiny
    model, in the folder `OUTPUT-smoke`, which an earlier one is replaced in. Raises WebError of
    status 409 where the output is taken, 422 where it is no name.
    """
    folder = web.workspace.output(str(recipe.get("output") or ""))
    output = f"runs/{folder.name}"
    argv = ["train", RECIPE, f"output={_quoted(output)}"]
    if not recipe.get("data_root"):  # relative paths start here, not at the job's recipe
        argv.append(f"data_root={_quoted(str(web.workspace.root))}")
    if smoke:
        argv.append("--smoke")
        output += "-smoke"
    argv += _trust(web, str(recipe.get("model") or ""))
    return web.jobs.add(
        "smoke" if smoke else "train",
        argv,
        title=folder.name,
        output=output,
        recipe=text,
        claim=not smoke,
        about=_about(recipe),
    )


def queue_resume(web: Web, run: Run) -> Job:
    """Queue a run to go on from its last checkpoint. Raises WebError of status 409."""
    if not run.can_resume:
        hint = "it has to be interrupted, failed or lost, with a checkpoint"
        raise WebError(f"the run is {run.status} and cannot be resumed", hint, status=409)
    output = f"output={_quoted(f'runs/{run.name}')}"
    argv = ["train", f"runs/{run.name}/recipe.yaml", output, "--resume"]
    argv += _trust(web, run.model)
    about = {"model": run.model, "adapter": run.adapter, "stages": list(run.stages)}
    return web.jobs.add(
        "train", argv, title=run.name, output=f"runs/{run.name}", claim=False, about=about
    )


def _quoted(text: str) -> str:
    """A text as a value of the command line, which is YAML."""
    return json.dumps(text, ensure_ascii=False)


def _trust(web: Web, model: str) -> list[str]:
    return ["--trust-remote-code"] if model in web.trusted else []


def _about(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """For the list of runs, until run.json is there."""
    stages = recipe.get("stages") or [recipe.get("stage")]
    names = [_name(each) for each in stages] if isinstance(stages, list) else []
    return {
        "model": str(recipe.get("model") or ""),
        "adapter": _name(recipe.get("adapter")),
        "stages": [name for name in names if name],
    }


def _name(section: Any) -> str:
    return str(section.get("name") or "") if isinstance(section, Mapping) else str(section or "")
