"""The page Models."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "models.jinja", page="models")


PAGE = Page("models", label="Models", path="/models", icon="cube", routes=(get("/models", _show),))
