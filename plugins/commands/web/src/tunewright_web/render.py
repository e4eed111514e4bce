"""Pages and fragments from Jinja templates."""

import functools
import hashlib
import json
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from tunewright_web.errors import WebError
from tunewright_web.page import web_of
from tunewright_web.pages import NAVIGATION
from tunewright_web.shown import FILTERS
from tunewright_web.words import LANGUAGES, TAGS, Words, chosen

if TYPE_CHECKING:
    import jinja2

    from tunewright_web.panels import Shown

__all__ = ["error_response", "redirect", "render", "url", "words_of"]

THEMES = ("system", "light", "dark")


def words_of(request: Request) -> Words:
    """The translator of a request: `_ = words_of(request)`, then `_("Runs")`."""
    accepted = request.headers.get("accept-language", "")
    return Words(chosen(request.cookies.get("tunewright-language"), accepted))


def url(request: Request, path: str, **query: object) -> str:
    """Address of a path of this server, below the proxy's prefix. The path's parts are quoted."""
    given = {name: value for name, value in query.items() if value not in (None, "")}
    pairs = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items())
    address = str(request.scope.get("root_path", "")) + quote(path, safe="/#")
    return f"{address}?{pairs}" if pairs else address


def render(
    request: Request, template: str, *, block: str = "", status: int = 200, **values: Any
) -> Response:
    """A page, or with `block` only that block of its template, for a part of a page.

    Templates know `_`, `url(path, **query)`, `web`, `request`, `page` (name of the page, if
    given), `parts` (the macros of parts.jinja), and the values. A fragment that the browser has is
    answered with 304.
    """
    found = _environment().get_template(template)
    common = _common(request)
    # for blocks that are rendered alone, too: an import of base.jinja would not be there
    common["parts"] = _environment().get_template("parts.jinja").make_module(common)
    context = found.new_context({**common, **values})
    if not block:
        return HTMLResponse("".join(found.root_render_func(context)), status)
    text = "".join(found.blocks[block](context))
    tag = f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return HTMLResponse(text, status, headers={"ETag": tag})


def redirect(request: Request, path: str, **query: object) -> Response:
    """Send the browser to another page, after a form."""
    address = url(request, path, **query)
    if "hx-request" in request.headers:
        return Response(status_code=200, headers={"HX-Redirect": address})
    return RedirectResponse(address, 303)


def error_response(request: Request, error: WebError) -> Response:
    """The error as JSON for the API, as a box in the page for a part of it, else as a page."""
    root = str(request.scope.get("root_path", ""))
    if request.url.path.removeprefix(root).startswith("/api/"):
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        text = json.dumps(error.as_dict(), ensure_ascii=False)
        return Response(text, error.status, headers, media_type="application/json")
    if "hx-request" in request.headers:
        shown = render(request, "error.jinja", block="box", status=error.status, error=error)
        shown.headers["HX-Retarget"] = "#notices"
        shown.headers["HX-Reswap"] = "innerHTML"
        return shown
    bare = error.status in (401, 421)  # to a stranger, nothing of the workspace is shown
    return render(request, "error.jinja", status=error.status, error=error, bare=bare)


def _common(request: Request) -> dict[str, Any]:
    words = words_of(request)
    theme = request.cookies.get("tunewright-theme", "")
    return {
        "_": words,
        "language": words.language,
        "languages": LANGUAGES,
        "tags": TAGS,
        "theme": theme if theme in THEMES else "system",
        "url": functools.partial(url, request),
        "request": request,
        "web": web_of(request),
        "page": "",
        "bare": False,
    }


@functools.cache
def _environment() -> "jinja2.Environment":
    import jinja2  # at the first page

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tunewright_web", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= FILTERS
    made.globals |= {"version": _assets_version(), "icon": _icon, "panels_of_nav": _panels_of_nav}
    made.globals["navigation"] = NAVIGATION
    return made


def _panels_of_nav() -> "list[Shown]":
    """Panels with an entry in the navigation; those that are broken say so there."""
    from tunewright import registry

    if not registry.entries("panel"):
        return []
    from tunewright_web.panels import installed

    return [each for each in installed() if each.panel is None or each.panel.place == "nav"]


@functools.cache
def _assets_version() -> str:
    """Changes with any static file: browsers may keep them for long."""
    folder = resources.files("tunewright_web").joinpath("static")
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _icon(name: str) -> Markup:
    """One of the drawings in static/icons.svg, which stand for words that are written next to
    them."""
    return Markup('<svg class="icon" aria-hidden="true"><use href="#icon-{}"/></svg>').format(name)
