"""Pages of panels, at /x/NAME; and their forms."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tunewright.errors import TunewrightError
from tunewright_web.errors import WebError
from tunewright_web.page import Form, Page, get, post, web_of
from tunewright_web.panels import Context, Panel, Shown, installed, shown
from tunewright_web.render import redirect, render, url, words_of
from tunewright_web.run import Run
from tunewright_web.words import Words

__all__ = ["PAGE", "context_of", "panels_of_new", "panels_of_run"]


def panels_of_run(run: Run) -> list[Shown]:
    """Panels that a run's page has as tabs."""
    return [each for each in installed() if each.panel is not None and _is_on(each.panel, run)]


def _is_on(panel: Panel, run: Run) -> bool:
    try:
        return panel.place == "run" and panel.shows(run)
    except Exception:  # its tab says what it raises
        return True


def panels_of_new(request: Request, draft: str, recipe: Mapping[str, Any]) -> list[Any]:
    """Panels below the last step of New run: each with its HTML."""
    found = [each for each in installed() if each.panel and each.panel.place == "new"]
    return [
        (each, shown(each, replace(context_of(request, each, None, draft), recipe=recipe)))
        for each in found
    ]


def context_of(request: Request, panel: Shown, run: Run | None, draft: str = "") -> Context:
    """The context of a request, with the panel's own words. draft: its id, in New run."""
    web, language = web_of(request), words_of(request).language
    own = panel.panel.words.get(language, {}) if panel.panel else {}
    below = f"/runs/{run.name}" if run else f"/new/{draft}" if draft else ""
    address = url(request, f"/x/{panel.name}{below}")
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
    draft, recipe = request.path_params.get("draft", ""), None
    if draft:
        from tunewright_web.pages.new import recipe_of  # which has panels, too

        recipe = recipe_of(web_of(request), draft)
    if panel.panel is None:
        raise WebError(panel.broken, status=409)
    try:
        action = request.path_params["action"]
        context = replace(context_of(request, panel, run, draft), recipe=recipe)
        panel.panel.act(context, action, form)
    except (WebError, TunewrightError):
        raise
    except Exception as error:
        said = f"panel {panel.name!r} is broken: {type(error).__name__}: {error}"[:500]
        raise WebError(said, status=500) from error
    if draft:
        return redirect(request, f"/new/{draft}/plan")
    if run is None:
        return redirect(request, f"/x/{panel.name}")
    return redirect(request, f"/runs/{run.name}", tab=f"x-{panel.name}")


PAGE = Page(
    "panel",
    routes=(
        get("/x/{panel}", _show),
        post("/x/{panel}/runs/{name}/{action}", _act),
        post("/x/{panel}/new/{draft}/{action}", _act),
        post("/x/{panel}/{action}", _act),
    ),
)
