"""The page Compare."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "compare.jinja", page="compare")


PAGE = Page(
    "compare", label="Compare", path="/compare", icon="compare", routes=(get("/compare", _show),)
)
