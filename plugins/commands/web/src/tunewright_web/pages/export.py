"""The page Export: a trained model in another format, checked against the run."""

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

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

_FOLDER = "exports"  # below the workspace


class ExportBody(BaseModel):
    """to: an exporter. name: of the new folder below `exports/`; default: RUN-FORMAT."""

    model_config = ConfigDict(extra="forbid")

    run: str
    to: str
    options: dict[str, Any] = Field(default_factory=dict)
    name: str = ""


def queue_export(web: "Web", body: ExportBody) -> "Job":
    """Queue an export. Raises WebError."""
    run = web.runs.get(body.run)
    if not run.has_model:
        raise WebError(f"the run {run.name} has no model yet", "wait for its end", status=409)
    form = find_form("exporter", body.to)
    options = option_arguments(web, form, body.options)
    name = plain_name(body.name or f"{run.name}-{form.name}")
    output = f"{_FOLDER}/{name}"
    if (web.workspace.root / output).exists():
        raise WebError(f"{output} exists already", "choose another name", status=409)
    (web.workspace.root / _FOLDER).mkdir(exist_ok=True)
    argv = ["export", f"runs/{run.name}", *options, "--to", form.name, "--output", output]
    argv += trusted(web, run.folder)
    about = {"run": run.name, "to": form.name}
    return web.jobs.add("export", argv, title=name, output=output, claim=False, about=about)


def reports(web: "Web") -> list[dict[str, Any]]:
    """Complete exports, the newest first: export.json of each, with its name and size."""
    found = []
    for file in (web.workspace.root / _FOLDER).glob("*/export.json"):
        try:
            report = json.loads(file.read_text("utf-8"))
            sizes = [size for size in report["files"].values() if isinstance(size, int)]
            more = {"name": file.parent.name, "size": sum(sizes), "time": file.stat().st_mtime}
            found.append({"options": {}, "adapters": [], **report, **more})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(found, key=lambda each: -each["time"])


# ---- pages ---------------------------------------------------------------------------------------


def _values(request: Request) -> dict[str, Any]:
    web = web_of(request)
    jobs = [job for job in web.jobs.all() if job.kind == "export" and job.status != "completed"]
    return {"page": "export", "jobs": jobs[:20], "reports": reports(web), "pairs": pairs}


def _show(request: Request) -> Response:
    web = web_of(request)
    forms, broken = plugin_forms("exporter")
    runs = [run.name for run in web.runs.all() if run.has_model]
    asked = request.query_params
    to = asked.get("to", "safetensors")
    form = next((each for each in forms if each.name == to), forms[0] if forms else None)
    return render(
        request,
        "export.jinja",
        runs=runs,
        run=asked.get("run", runs[0] if runs else ""),
        forms=forms,
        form=form,
        broken=broken,
        **_values(request),
    )


def _list(request: Request) -> Response:
    return render(request, "export.jinja", block="list", **_values(request))


def _start(request: Request, form: Form) -> Response:
    plugin = find_form("exporter", form.get("to", ""))
    options = options_of_form(plugin, form)
    run, name = form.get("run", ""), form.get("name", "").strip()
    queue_export(web_of(request), ExportBody(run=run, to=plugin.name, options=options, name=name))
    return redirect(request, "/export", run=run, to=plugin.name)


def _create(call: Call) -> Any:
    return queue_export(call.web, call.body).as_dict()


def _reports(call: Call) -> Any:
    return reports(call.web)


PAGE = Page(
    "export",
    routes=(get("/export", _show), get("/export/list", _list), post("/export", _start)),
    api=(
        Api("GET", "/exports", _reports, "Complete exports, with their reports."),
        Api("POST", "/exports", _create, "Queue an export.", body=ExportBody, status=201),
    ),
)
