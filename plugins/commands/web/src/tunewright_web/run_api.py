"""The API of one run."""

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response, StreamingResponse

from tunewright_web.begin import from_run
from tunewright_web.drafts import Drafts
from tunewright_web.errors import WebError
from tunewright_web.files import listed, log_part, part_of
from tunewright_web.form import installed
from tunewright_web.index import Index
from tunewright_web.page import Api, Call
from tunewright_web.processes import terminate
from tunewright_web.run import Run
from tunewright_web.series import Point
from tunewright_web.training import queue_resume
from tunewright_web.web import Web

__all__ = ["ROUTES", "delete_run", "log_of", "news_of", "stop_run"]

_STREAMS = 32  # of events, at once
_open_streams = 0


class MetricsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: str = Field("", max_length=40, description="Cursor of an earlier answer: only news.")
    points: int = Field(1_000, ge=2, le=20_000, description="Points of a curve, about.")
    keys: str = Field("", max_length=2_000, description="Metrics, with commas between. All: none.")


class LogQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: str = Field("", max_length=40, description="Cursor of an earlier answer.")


class EventsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: str = Field("", max_length=40, description="Cursor, as Last-Event-ID.")
    follow: Literal["yes", "no"] = Field("yes", description="Wait for events of a running run.")


# ---- what pages call, too ------------------------------------------------------------------------


def stop_run(web: Web, run: Run) -> None:
    """Ask a run to save and end; a second time, kill it. Raises WebError of status 409."""
    if run.job is not None and run.is_active:
        web.jobs.stop(run.job, at_once=run.status == "stopping")
        return
    started = float((run.state.get("running") or {}).get("started") or 0.0)
    if run.status != "running" or not run.here or not terminate(run.pid, started):
        raise WebError(f"the run is {run.status}: there is nothing to stop", status=409)


def delete_run(web: Web, run: Run) -> None:
    """Delete a run's folder. Raises WebError of status 409 while it is active."""
    if run.is_active:
        raise WebError(f"the run is {run.status}", "stop it first", status=409)
    if run.is_ending:
        raise WebError("the run still ends", "try again in a few seconds", status=409)
    shutil.rmtree(web.workspace.run(run.name))
    web.runs.forget(run.name)


def log_of(web: Web, run: Run, after: str) -> dict[str, Any]:
    """Output of the newest job of a run; of a run from a terminal there is none."""
    job = web.jobs.of_output(f"runs/{run.name}")
    if job is None:
        return {"text": "", "cursor": "0", "skipped": 0, "more": False, "job": None}
    return log_part(job.log, after) | {"job": job.id}


def news_of(index: Index, after: str, points: int, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Curves, whole where `reset` says so, else what came after the cursor."""
    events = index.news(after) if after else None
    wanted = set(keys)
    if events is None:
        found = {name: each.points(points) for name, each in list(index.series.items())}
    else:
        found = index.points_of(events)
    return {
        "cursor": index.cursor,
        "reset": events is None,
        "series": {
            name: _columns(each) for name, each in found.items() if not wanted or name in wanted
        },
        "not_finite": {
            name: each.not_finite for name, each in list(index.series.items()) if each.not_finite
        },
    }


def _columns(points: list[Point]) -> dict[str, list[Any]]:
    return {
        "step": [point.step for point in points],
        "value": [point.value for point in points],
        "seconds": [round(point.seconds, 2) for point in points],
        "tokens": [point.tokens for point in points],
    }


# ---- routes --------------------------------------------------------------------------------------


def _run(call: Call) -> Run:
    return call.web.runs.get(call.path("id"))


def _get(call: Call) -> dict[str, Any]:
    run = _run(call)
    index = call.web.runs.index(run.name)
    stages = [
        {"name": each.name, "number": each.number, "total_steps": each.total_steps}
        | {"first_step": each.first_step, "saved": each.saved, "metrics": each.metrics}
        for each in index.stages.values()
    ]
    eta = index.eta() if run.is_active else None
    return run.as_dict() | {"eta": eta, "progress": stages, "recipe": run.state.get("recipe")}


def _metrics(call: Call) -> dict[str, Any]:
    query = call.query
    keys = [key for key in query.keys.split(",") if key]
    return news_of(call.web.runs.index(_run(call).name), query.after, query.points, keys)


def _news(call: Call) -> dict[str, Any]:
    """What a page needs to go on: status, progress and curves."""
    run = _run(call)
    index = call.web.runs.index(run.name)
    eta = index.eta() if run.is_active else None
    return news_of(index, call.query.after, call.query.points) | {"run": run.as_dict(), "eta": eta}


def _log(call: Call) -> dict[str, Any]:
    return log_of(call.web, _run(call), call.query.after)


def _files(call: Call) -> dict[str, Any]:
    return {"files": [{"name": name, "size": size} for name, size in listed(_run(call).folder)]}


def _file(call: Call) -> Response:
    path = part_of(_run(call).folder, call.path("name"))
    return FileResponse(path, filename=path.name, media_type="application/octet-stream")


def _delete(call: Call) -> dict[str, Any]:
    delete_run(call.web, _run(call))
    return {"deleted": call.path("id")}


def _stop(call: Call) -> dict[str, Any]:
    stop_run(call.web, _run(call))
    return _run(call).as_dict()


def _resume(call: Call) -> dict[str, Any]:
    return queue_resume(call.web, _run(call)).as_dict()


def _clone(call: Call) -> dict[str, Any]:
    run = _run(call)
    drafts = Drafts(call.web.workspace.drafts)
    return {"draft": from_run(installed(), drafts, call.web.workspace, run.name).id}


async def _events(call: Call) -> Response:
    """Server-sent events, for scripts: data is an event of events.jsonl, id the cursor after it."""
    after = call.request.headers.get("last-event-id", "") or call.query.after
    index = await run_in_threadpool(lambda: call.web.runs.index(_run(call).name))
    start = index.offset_of(after) if after else 0
    if _open_streams >= _STREAMS:
        raise WebError(f"{_STREAMS} streams are open already", "close one", status=429)
    stream = _sent(call, index, start or 0, follow=call.query.follow == "yes")
    return StreamingResponse(stream, media_type="text/event-stream")


async def _sent(call: Call, index: Index, offset: int, *, follow: bool) -> AsyncGenerator[bytes]:
    global _open_streams
    _open_streams += 1
    try:
        while True:
            for line in await run_in_threadpool(index.lines, offset):
                offset += len(line)
                cursor = f"{index.generation or '0' * 8}.{offset:x}"
                yield f"id: {cursor}\ndata: ".encode() + line.rstrip(b"\r\n") + b"\n\n"
            if index.offset > offset:
                continue
            run = await run_in_threadpool(_run, call)
            if not follow or not run.is_active:
                yield b"event: end\ndata: " + json.dumps(run.status).encode() + b"\n\n"
                return
            yield b": keep-alive\n\n"
            await asyncio.sleep(1)
            await run_in_threadpool(index.update)
    finally:
        _open_streams -= 1


_ID = "/runs/{id}"
ROUTES = (
    Api("GET", _ID, _get, "One run: status, progress, recipe."),
    Api("DELETE", _ID, _delete, "Delete a run's folder."),
    Api("GET", f"{_ID}/metrics", _metrics, "Curves of a run.", query=MetricsQuery),
    Api("GET", f"{_ID}/news", _news, "Status and curves of a run.", query=MetricsQuery),
    Api(
        "GET",
        f"{_ID}/events",
        _events,
        "Events of a run, as server-sent events.",
        query=EventsQuery,
        media="text/event-stream",
    ),
    Api("GET", f"{_ID}/log", _log, "Output of a run's newest job.", query=LogQuery),
    Api("GET", f"{_ID}/files", _files, "Files of a run."),
    Api(
        "GET",
        f"{_ID}/files/{{name:path}}",
        _file,
        "One file of a run.",
        media="application/octet-stream",
    ),
    Api("POST", f"{_ID}/stop", _stop, "Ask a run to save and end; again: kill it."),
    Api("POST", f"{_ID}/clone", _clone, "Make a draft of its recipe.", status=201),
    Api("POST", f"{_ID}/resume", _resume, "Queue a run to go on.", status=201),
)
