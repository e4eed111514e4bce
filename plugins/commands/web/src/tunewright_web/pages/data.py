"""The page Data."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "data.jinja", page="data")


PAGE = Page("data", label="Data", path="/data", icon="database", routes=(get("/data", _show),))
