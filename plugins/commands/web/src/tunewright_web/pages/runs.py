"""The page Runs, the first one: all runs and the queue."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get, web_of
from tunewright_web.render import render
from tunewright_web.run import Run
from tunewright_web.system import system
from tunewright_web.web import Web

__all__ = ["PAGE"]

_ROWS = 50  # of one page of the table
_CURVE = 60  # points of a small curve
_LARGEST = 8 * 2**20  # bytes of an events.jsonl that is read for a small curve


def _show(request: Request) -> Response:
    return render(request, "runs.jinja", page="runs", **_table(request))


def _list(request: Request) -> Response:
    return render(request, "runs.jinja", block="list", **_table(request))


def _table(request: Request) -> dict[str, Any]:
    web = web_of(request)
    query = request.query_params
    text, status = query.get("q", "")[:200], query.get("status", "")[:20]
    runs = web.runs.all(status, text)
    at = max(0, min(_int(query.get("from", "")), max(0, len(runs) - 1)))
    at -= at % _ROWS
    shown = runs[at : at + _ROWS]
    jobs = web.jobs.active()
    return {
        "runs": shown,
        "curves": {run.name: curve for run in shown if (curve := _curve(web, run))},
        "etas": {run.name: web.runs.index(run.name).eta() for run in shown if run.pid},
        "count": len(runs),
        "at": at,
        "rows": _ROWS,
        "text": text,
        "chosen": status,
        "jobs": jobs,
        "queued": [job for job in jobs if job.status == "queued"],
        "is_live": bool(jobs) or any(run.is_active for run in runs),
        "system": system(web.workspace.root),
    }


def _int(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else 0


def _curve(web: Web, run: Run) -> str:
    """The loss as the points of a polyline in a box of 120 × 28."""
    try:
        if (run.folder / "events.jsonl").stat().st_size > _LARGEST:
            return ""
        series = web.runs.index(run.name).series.get("loss")
    except OSError:
        return ""
    points = [(p.step, p.value) for p in series.points(_CURVE)] if series else []
    found = [(step, value) for step, value in points if value is not None]
    if len(found) < 2:
        return ""
    low, high = min(v for _, v in found), max(v for _, v in found)
    first, wide = found[0][0], (found[-1][0] - found[0][0]) or 1
    tall = (high - low) or 1.0
    pairs = (
        f"{118 * (step - first) / wide + 1:.1f},{26 - 24 * (value - low) / tall:.1f}"
        for step, value in found
    )
    return " ".join(pairs)


PAGE = Page("runs", routes=(get("/", _show), get("/runs", _list)))
