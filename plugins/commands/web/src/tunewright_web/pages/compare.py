"""The page Compare: two to eight runs on one chart, and what differs between them."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.comparison import MOST, compare, curves
from tunewright_web.page import Api, Call, Page, get, web_of
from tunewright_web.render import render

__all__ = ["PAGE"]


class CompareQuery(BaseModel):
    """runs: their names with / between them. metric: whose curves are given; "": none."""

    model_config = ConfigDict(extra="forbid")

    runs: str
    metric: str = ""


def _show(request: Request) -> Response:
    web = web_of(request)
    chosen = list(dict.fromkeys(request.query_params.getlist("run")))
    found = compare(web, chosen) if len(chosen) > 1 else None
    return render(
        request,
        "compare.jinja",
        page="compare",
        runs=web.runs.all(),
        chosen=chosen,
        found=found,
        most=MOST,
    )


def _read(call: Call) -> Any:
    query: CompareQuery = call.query
    names = list(dict.fromkeys(query.runs.split("/")))
    found = compare(call.web, names)
    return {
        "runs": [run.name for run in found.runs],
        "recipes": {name: dict(zip(names, values, strict=True)) for name, values in found.recipes},
        "results": {name: dict(zip(names, values, strict=True)) for name, values in found.results},
        "metrics": found.metrics,
        "curves": curves(call.web, names, query.metric) if query.metric else {},
    }


PAGE = Page(
    "compare",
    routes=(get("/compare", _show),),
    api=(Api("GET", "/compare", _read, "Two to eight runs side by side.", query=CompareQuery),),
)
