"""The page Plugins."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "plugins.jinja", page="plugins")


PAGE = Page(
    "plugins", label="Plugins", path="/plugins", icon="plug", routes=(get("/plugins", _show),)
)
