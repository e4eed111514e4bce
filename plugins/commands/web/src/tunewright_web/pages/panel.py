"""Pages of panels, at /x/NAME; and their forms."""

from starlette.requests import Request
from starlette.responses import Response

from tunewright.errors import TunewrightError
from tunewright_web.errors import WebError
from tunewright_web.page import Form, Page, get, post, web_of
from tunewright_web.panels import Context, Panel, Shown, installed, shown
from tunewright_web.render import redirect, render, url, words_of
from tunewright_web.run import Run
from tunewright_web.words import Words

__all__ = ["PAGE", "context_of", "panels_of_run"]


def panels_of_run(run: Run) -> list[Shown]:
    """Panels that a run's page has as tabs."""
    return [each for each in installed() if each.panel is not None and _is_on(each.panel, run)]


def _is_on(panel: Panel, run: Run) -> bool:
    try:
        return panel.place == "run" and panel.shows(run)
    except Exception:  # its tab says what it raises
        return True


def context_of(request: Request, panel: Shown, run: Run | None) -> Context:
    """The context of a request, with the panel's own words."""
    web, language = web_of(request), words_of(request).language
    own = panel.panel.words.get(language, {}) if panel.panel else {}
    address = url(request, f"/x/{panel.name}" + (f"/runs/{run.name}" if run else ""))
    words = Words(language, own)
    return Context(run, web.runs, web.jobs, web.workspace, words, address, panel.loaded)


def _find(request: Request) -> Shown:
    name = request.path_params["panel"]
    found = next((each for each in installed() if each.name == name), None)
    if found is None:
        raise WebError(f"there is no panel {name!r:.100}", status=404)
    return found


def _show(request: Request) -> Response:
    panel = _find(request)
    made = shown(panel, context_of(request, panel, None))
    return render(request, "panel.jinja", page=f"x-{panel.name}", panel=panel, made=made)


def _act(request: Request, form: Form) -> Response:
    panel, name = _find(request), request.path_params.get("name")
    run = web_of(request).runs.get(name) if name else None
    if panel.panel is None:
        raise WebError(panel.broken, status=409)
    try:
        action = request.path_params["action"]
        panel.panel.act(context_of(request, panel, run), action, form)
    except (WebError, TunewrightError):
        raise
    except Exception as error:
        said = f"panel {panel.name!r} is broken: {type(error).__name__}: {error}"[:500]
        raise WebError(said, status=500) from error
    if run is None:
        return redirect(request, f"/x/{panel.name}")
    return redirect(request, f"/runs/{run.name}", tab=f"x-{panel.name}")


PAGE = Page(
    "panel",
    routes=(
        get("/x/{panel}", _show),
        post("/x/{panel}/runs/{name}/{action}", _act),
        post("/x/{panel}/{action}", _act),
    ),
)
