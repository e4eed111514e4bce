"""The page Chat."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.page import Page, get
from tunewright_web.render import render

__all__ = ["PAGE"]


def _show(request: Request) -> Response:
    return render(request, "chat.jinja", page="chat")


PAGE = Page("chat", label="Chat", path="/chat", icon="chat", routes=(get("/chat", _show),))
