"""The page Settings: language, theme, and where things lie."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright_web.errors import WebError
from tunewright_web.page import Form, Page, get, post
from tunewright_web.render import THEMES, redirect, render
from tunewright_web.words import LANGUAGES

__all__ = ["PAGE"]

_YEAR = 365 * 86400  # seconds


def _show(request: Request) -> Response:
    return render(request, "settings.jinja", page="settings")


def _save(request: Request, form: Form) -> Response:
    known = {"language": LANGUAGES, "theme": THEMES}
    response = redirect(request, "/settings")
    for name, values in known.items():
        if (value := form.get(name)) is None:
            continue
        if value not in values:
            raise WebError(f"{name}: there is no {value!r:.40}", status=422)
        response.set_cookie(f"tunewright-{name}", value, max_age=_YEAR, samesite="lax")
    return response


PAGE = Page(
    "settings",
    routes=(get("/settings", _show), post("/settings", _save)),
)
