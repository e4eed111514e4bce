"""The page Evaluate."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "evaluate.jinja", page="evaluate")


PAGE = Page(
    "evaluate", label="Evaluate", path="/evaluate", icon="gauge", routes=(get("/evaluate", _show),)
)
