"""Jobs: the queue's buttons, the page of one job, and the API."""

import contextlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from tunewright_web import wizard
from tunewright_web.files import log_part
from tunewright_web.form import installed
from tunewright_web.page import Api, Call, Form, Page, get, post, web_of
from tunewright_web.pages.new_api import RecipeBody, texts_of_body
from tunewright_web.render import redirect, render

__all__ = ["PAGE"]


def _cancel(request: Request, form: Form) -> Response:
    web_of(request).jobs.cancel(request.path_params["id"])
    return redirect(request, "/")


def _up(request: Request, form: Form) -> Response:
    web_of(request).jobs.move(request.path_params["id"], -1)
    return redirect(request, "/")


def _down(request: Request, form: Form) -> Response:
    web_of(request).jobs.move(request.path_params["id"], 1)
    return redirect(request, "/")


def _stop(request: Request, form: Form) -> Response:
    job = web_of(request).jobs.get(request.path_params["id"])
    web_of(request).jobs.stop(job.id, at_once=job.status == "stopping")
    return redirect(request, f"/jobs/{job.id}")


def _job(request: Request) -> Response:
    """A training's page is that of its run."""
    web = web_of(request)
    job = web.jobs.get(request.path_params["id"])
    if job.kind in ("train", "smoke") and job.output:
        name = job.output.removeprefix("runs/")
        with contextlib.suppress(Exception):
            web.runs.get(name)
            return redirect(request, f"/runs/{name}")
    return render(request, "job.jinja", page="runs", job=job)


def _job_head(request: Request) -> Response:
    job = web_of(request).jobs.get(request.path_params["id"])
    return render(request, "job.jinja", block="head", job=job)


# ---- API -----------------------------------------------------------------------------------------


class JobBody(RecipeBody):
    """A recipe as JSON, or the id of a draft."""

    smoke: bool = Field(False, description="Only try every part, on a tiny model.")


class MoveBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    by: int = Field(ge=-1_000, le=1_000, description="Places: -1 is one forward.")


class LogQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: str = Field("", max_length=40, description="Cursor of an earlier answer.")


def _api_jobs(call: Call) -> dict[str, Any]:
    return {"jobs": [job.as_dict() for job in call.web.jobs.all()]}


def _api_add(call: Call) -> dict[str, Any]:
    texts = texts_of_body(call)
    return wizard.queue(call.web, installed(), texts, smoke=call.body.smoke).as_dict()


def _api_job(call: Call) -> dict[str, Any]:
    return call.web.jobs.get(call.path("id")).as_dict()


def _api_log(call: Call) -> dict[str, Any]:
    job = call.web.jobs.get(call.path("id"))
    return log_part(job.log, call.query.after)


def _api_cancel(call: Call) -> dict[str, Any]:
    return call.web.jobs.cancel(call.path("id")).as_dict()


def _api_stop(call: Call) -> dict[str, Any]:
    return call.web.jobs.stop(call.path("id")).as_dict()


def _api_move(call: Call) -> dict[str, Any]:
    call.web.jobs.move(call.path("id"), call.body.by)
    return _api_jobs(call)


PAGE = Page(
    "queue",
    routes=(
        get("/jobs/{id}", _job),
        get("/jobs/{id}/head", _job_head),
        post("/jobs/{id}/cancel", _cancel),
        post("/jobs/{id}/up", _up),
        post("/jobs/{id}/down", _down),
        post("/jobs/{id}/stop", _stop),
    ),
    api=(
        Api("GET", "/jobs", _api_jobs, "Jobs: running ones, the queue in order, those that ended."),
        Api("POST", "/jobs", _api_add, "Queue a training.", body=JobBody, status=201),
        Api("GET", "/jobs/{id}", _api_job, "One job."),
        Api("GET", "/jobs/{id}/log", _api_log, "Output of a job.", query=LogQuery),
        Api("POST", "/jobs/{id}/cancel", _api_cancel, "Take a job out of the queue."),
        Api("POST", "/jobs/{id}/stop", _api_stop, "Ask a job to save and end."),
        Api("POST", "/jobs/{id}/move", _api_move, "Change the order of the queue.", body=MoveBody),
    ),
)
