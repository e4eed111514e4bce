"""The page New run."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "new.jinja", page="new")


PAGE = Page("new", label="New run", path="/new", icon="plus", routes=(get("/new", _show),))
