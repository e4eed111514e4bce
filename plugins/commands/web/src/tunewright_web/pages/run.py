"""The page of one run: status, curves, log, samples, files, recipe; and its buttons."""

import contextlib
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from tunewright_web.errors import WebError
from tunewright_web.files import listed, part_of
from tunewright_web.page import Form, Page, get, post, web_of
from tunewright_web.pages.panel import context_of, panels_of_run
from tunewright_web.panels import shown
from tunewright_web.recipe_diff import differences
from tunewright_web.render import redirect, render
from tunewright_web.run import Run
from tunewright_web.run_api import ROUTES, delete_run, log_of, stop_run
from tunewright_web.training import queue_resume

__all__ = ["PAGE"]

_SHOWN = 50  # samples and notices of a page


def _run(request: Request) -> Run:
    return web_of(request).runs.get(request.path_params["name"])


def _show(request: Request) -> Response:
    run, tab = _run(request), request.query_params.get("tab", "curves")
    panels = panels_of_run(run)
    if tab in _TABS:
        found = _TABS[tab](request, run)
    elif panel := next((each for each in panels if tab == f"x-{each.name}"), None):
        found = {"made": shown(panel, context_of(request, panel, run))}
    else:
        raise WebError(f"there is no tab {tab!r:.40}", status=404)
    found |= {"panels": panels, **_head(request, run)}
    return render(request, "run.jinja", page="runs", tab=tab, **found)


def _part(request: Request) -> Response:
    return render(request, "run.jinja", block="head", **_head(request, _run(request)))


def _head(request: Request, run: Run) -> dict[str, Any]:
    web = web_of(request)
    index = web.runs.index(run.name)
    stage = index.stage
    base = stage.base if stage else 0
    last = {name: each.last for name, each in index.series.items() if each.last}
    queue = [job.id for job in web.jobs.active() if job.status == "queued"]
    return {
        "run": run,
        "index": index,
        "stage": stage,
        "last": {name: point.value for name, point in last.items()},
        "done": max(0, max((point.step for point in last.values()), default=0) - base),
        "eta": index.eta() if run.status == "running" else None,
        "place": queue.index(run.job) + 1 if run.job in queue else 0,
        "not_finite": sum(each.not_finite for each in index.series.values()),
    }


def _curves(request: Request, run: Run) -> dict[str, Any]:
    others = [other.name for other in web_of(request).runs.all() if other.name != run.name]
    return {"others": others[:500], "picture": (run.folder / "loss.png").is_file()}


def _log(request: Request, run: Run) -> dict[str, Any]:
    index = web_of(request).runs.index(run.name)
    return {
        "log": log_of(web_of(request), run, ""),
        "notices": list(index.notices)[-_SHOWN:],
    }


def _samples(request: Request, run: Run) -> dict[str, Any]:
    index = web_of(request).runs.index(run.name)
    return {"samples": list(reversed(index.samples))[:_SHOWN]}


def _new_samples(request: Request) -> Response:
    run = _run(request)
    return render(request, "run.jinja", block="samples", run=run, **_samples(request, run))


def _files(request: Request, run: Run) -> dict[str, Any]:
    best = [str(path.relative_to(run.folder)) for path in reversed(run.checkpoints)]
    return {"files": listed(run.folder), "checkpoints": best}


def _recipe(request: Request, run: Run) -> dict[str, Any]:
    web = web_of(request)
    recipe = run.state.get("recipe") or {}
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True) if recipe else ""
    if not text and run.job is not None:
        with contextlib.suppress(OSError):
            text = (web.jobs.get(run.job).folder / "recipe.yaml").read_text("utf-8")
    other = request.query_params.get("other", "")
    rows = []
    if other:
        rows = differences(recipe, web.runs.get(other).state.get("recipe") or {})
    others = [each.name for each in web.runs.all() if each.name != run.name and each.state]
    return {"recipe": text, "other": other, "rows": rows, "others": others[:500]}


_TABS = {
    "curves": _curves,
    "log": _log,
    "samples": _samples,
    "files": _files,
    "recipe": _recipe,
}


def _picture(request: Request) -> Response:
    """A picture of the run folder, for browsers without JavaScript and the log of files."""
    name = request.path_params["file"]
    if not name.endswith(".png"):
        raise WebError("only pictures are shown here", status=404)
    return FileResponse(part_of(_run(request).folder, name), media_type="image/png")


# ---- buttons -------------------------------------------------------------------------------------


def _stop(request: Request, form: Form) -> Response:
    run = _run(request)
    stop_run(web_of(request), run)
    return redirect(request, "/" if run.status == "queued" else f"/runs/{run.name}")


def _resume(request: Request, form: Form) -> Response:
    run = _run(request)
    queue_resume(web_of(request), run)
    return redirect(request, f"/runs/{run.name}")


def _delete(request: Request, form: Form) -> Response:
    delete_run(web_of(request), _run(request))
    return redirect(request, "/")


_NAME = "/runs/{name}"
PAGE = Page(
    "run",
    routes=(
        get(_NAME, _show),
        get(f"{_NAME}/head", _part),
        get(f"{_NAME}/samples", _new_samples),
        get(f"{_NAME}/picture/{{file:path}}", _picture),
        post(f"{_NAME}/stop", _stop),
        post(f"{_NAME}/resume", _resume),
        post(f"{_NAME}/delete", _delete),
    ),
    api=ROUTES,
)
