"""The page Evaluate: measures of trained models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from tunewright import registry
from tunewright_web.errors import WebError
from tunewright_web.page import Api, Call, Form, Page, get, post, web_of
from tunewright_web.plugin_form import (
    find_form,
    option_arguments,
    options_of_form,
    pairs,
    plugin_forms,
    trusted,
)
from tunewright_web.render import redirect, render
from tunewright_web.workspace import plain_name

if TYPE_CHECKING:
    from tunewright_web.job import Job
    from tunewright_web.web import Web

__all__ = ["PAGE"]

_MOST = 50  # results on the page


class EvaluationBody(BaseModel):
    """evaluator: such as perplexity. other: the second run, for evaluators that compare two. name:
    of the results' folder; default: the evaluator's. engine: default: the recipe's."""

    model_config = ConfigDict(extra="forbid")

    run: str
    evaluator: str
    other: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    name: str = ""
    engine: str = ""
    overwrite: bool = False


def queue_evaluation(web: "Web", body: EvaluationBody) -> "Job":
    """Queue an evaluation. Raises WebError."""
    form = find_form("evaluator", body.evaluator)
    names = [body.run, body.other] if form.runs == 2 else [body.run]
    for name in names:
        if not name:
            raise WebError(f"{form.name} compares two runs", "choose the second", status=422)
        if not web.runs.get(name).has_model:
            raise WebError(f"the run {name} has no model yet", "wait for its end", status=409)
    argv = ["evaluate", *(f"runs/{name}" for name in names)]
    argv += option_arguments(web, form, body.options)
    argv += ["--with", form.name, "--name", plain_name(body.name or form.name).replace(" ", "-")]
    if body.engine:
        if body.engine not in _engines():
            raise WebError(f"engine: no plugin is called {body.engine!r:.60}", status=422)
        argv += ["--engine", body.engine]
    if body.overwrite:
        argv.append("--overwrite")
    argv += trusted(web, web.workspace.run(body.run))
    about = {"run": body.run, "evaluator": form.name}
    return web.jobs.add("evaluate", argv, title=f"{body.run}: {form.name}", about=about)


def _engines() -> list[str]:
    return sorted(entry.name for entry in registry.entries("engine"))


def results(web: "Web") -> list[dict[str, Any]]:
    """Complete evaluations of all runs, the newest first: results.json of each, with its run and
    name."""
    found = list(_results(web.workspace.runs))
    return sorted(found, key=lambda each: -each["time"])


def _results(runs: Path) -> Iterator[dict[str, Any]]:
    for file in runs.glob("*/evaluations/*/results.json"):
        try:
            read = json.loads(file.read_text("utf-8"))
            yield {
                "run": file.parents[2].name,
                "name": file.parent.name,
                "evaluator": str(read["settings"]["evaluator"]),
                "metrics": dict(read["metrics"]),
                "margins": dict(read["margins"]),
                "parts": dict(read["parts"]),
                "rows": read["rows"],
                "errors": read["errors"],
                "time": file.stat().st_mtime,
                "has_chart": (file.parent / "chart.png").is_file(),
            }
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another program's, or damaged: `evaluate` says so


# ---- pages ---------------------------------------------------------------------------------------


def _values(request: Request) -> dict[str, Any]:
    web = web_of(request)
    jobs = [job for job in web.jobs.all() if job.kind == "evaluate" and job.status != "completed"]
    found = results(web)
    return {
        "page": "evaluate",
        "jobs": jobs[:20],
        "results": found[:_MOST],
        "more": max(0, len(found) - _MOST),
        "pairs": pairs,
    }


def _show(request: Request) -> Response:
    web = web_of(request)
    forms, broken = plugin_forms("evaluator")
    runs = [run.name for run in web.runs.all() if run.has_model]
    asked = request.query_params
    wanted = asked.get("with", "perplexity")
    form = next((each for each in forms if each.name == wanted), forms[0] if forms else None)
    return render(
        request,
        "evaluate.jinja",
        runs=runs,
        run=asked.get("run", runs[0] if runs else ""),
        forms=forms,
        form=form,
        broken=broken,
        engines=_engines(),
        **_values(request),
    )


def _list(request: Request) -> Response:
    return render(request, "evaluate.jinja", block="list", **_values(request))


def _start(request: Request, form: Form) -> Response:
    plugin = find_form("evaluator", form.get("with", ""))
    run = form.get("run", "")
    body = EvaluationBody(
        run=run,
        evaluator=plugin.name,
        other=form.get("other", ""),
        options=options_of_form(plugin, form),
        name=form.get("name", "").strip(),
        engine=form.get("engine", ""),
        overwrite="overwrite" in form,
    )
    queue_evaluation(web_of(request), body)
    return redirect(request, "/evaluate", **{"run": run, "with": plugin.name})


def _chart(request: Request) -> Response:
    folder = web_of(request).workspace.run(request.path_params["run"])
    path = folder / "evaluations" / plain_name(request.path_params["name"]) / "chart.png"
    if not path.is_file() or path.is_symlink():
        raise WebError("there is no such picture", status=404)
    return FileResponse(path, media_type="image/png")


def _create(call: Call) -> Any:
    return queue_evaluation(call.web, call.body).as_dict()


def _read(call: Call) -> Any:
    return results(call.web)


PAGE = Page(
    "evaluate",
    routes=(
        get("/evaluate", _show),
        get("/evaluate/list", _list),
        post("/evaluate", _start),
        get("/evaluate/{run}/{name}/chart.png", _chart),
    ),
    api=(
        Api("GET", "/evaluations", _read, "Results of complete evaluations."),
        Api(
            "POST",
            "/evaluations",
            _create,
            "Queue an evaluation.",
            body=EvaluationBody,
            status=201,
        ),
    ),
)
