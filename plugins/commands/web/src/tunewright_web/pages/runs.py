"""The page Runs."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "runs.jinja", page="runs")


PAGE = Page("runs", label="Runs", path="/", icon="runs", routes=(get("/", _show),))
