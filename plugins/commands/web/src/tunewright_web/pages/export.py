"""The page Export."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "export.jinja", page="export")


PAGE = Page(
    "export", label="Export", path="/export", icon="package", routes=(get("/export", _show),)
)
